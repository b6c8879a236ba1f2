// Which seeds a simulation runs: KRG_SIM_RUNS=n runs n times as many; KRG_SIM_SEED=n replays one.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <cstdlib>

namespace krg {

inline uint64_t first_seed() {
  const char* chosen = std::getenv("KRG_SIM_SEED");
  return chosen ? std::strtoull(chosen, nullptr, 10) : 1;
}
inline unsigned seed_count(unsigned otherwise) {
  if (std::getenv("KRG_SIM_SEED")) return 1;
  const char* times = std::getenv("KRG_SIM_RUNS");
  return otherwise * (times ? static_cast<unsigned>(std::strtoul(times, nullptr, 10)) : 1);
}

}  // namespace krg
