// RLIMIT_CPU of a process whose threads use processors of several nodes. The kernel of its home
// counts only what they use there, so home compares all of it with the limits now and then, and
// does what the kernel would do. Source: setrlimit(2); check_process_timers() of Linux, which moves
// the soft limit on by a second with each SIGXCPU. Pure. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/resource.h>

#include <chrono>

namespace krg {

enum class CpuLimitAction { kNone, kWarn, kKill };

inline bool is_cpu_limited(const rlimit& limit) {
  return limit.rlim_cur != RLIM_INFINITY || limit.rlim_max != RLIM_INFINITY;
}

inline CpuLimitAction cpu_limit_action(const rlimit& limit, std::chrono::nanoseconds used) {
  const auto seconds =
      static_cast<rlim_t>(std::chrono::duration_cast<std::chrono::seconds>(used).count());
  if (limit.rlim_max != RLIM_INFINITY && seconds >= limit.rlim_max) return CpuLimitAction::kKill;
  if (limit.rlim_cur != RLIM_INFINITY && seconds >= limit.rlim_cur) return CpuLimitAction::kWarn;
  return CpuLimitAction::kNone;
}

// After a warning: when the next one is due.
inline rlimit next_cpu_limit(rlimit limit) {
  if (limit.rlim_cur < limit.rlim_max) ++limit.rlim_cur;
  return limit;
}

}  // namespace krg
