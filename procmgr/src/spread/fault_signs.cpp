// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/fault_signs.h"

#include <algorithm>

namespace krg {

void FaultSigns::add(const PageFault& fault, Clock::time_point served) {
  if (is_return(fault)) {
    ++sum_.returns;
    sum_.waited_ns += fault.waited.count();
  }
  auto [look, is_first] = looks_.try_emplace(fault.thread, Look{fault.address, served});
  if (is_first) return;
  const auto looked = served - fault.waited - look->second.since;
  if (!fault.write && look->second.word == fault.address)
    sum_.spun_ns +=
        std::clamp<Clock::duration>(looked, Clock::duration{0},
                                    std::max<Clock::duration>(kLongestLook, fault.waited)) /
        std::chrono::nanoseconds(1);
  look->second = {fault.address, served};
}

bool FaultSigns::is_return(const PageFault& fault) {
  if (fault.was_here) return false;
  const size_t to_read = 2 * fault.page.value, to_write = to_read + 1;
  if (had_.size() <= to_write) had_.resize(to_write + 1);
  const bool had = had_[fault.write ? to_write : to_read];
  had_[to_read] = true;
  if (fault.write) had_[to_write] = true;
  return had;
}

}  // namespace krg
