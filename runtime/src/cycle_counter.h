// The processor's cycle counter: a third of the cost of a clock, where nothing depends on how long
// a cycle is. Any thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <x86intrin.h>

#include <cstdint>

namespace krg {

inline uint64_t cycle_counter() {
  return __rdtsc();
}

}  // namespace krg
