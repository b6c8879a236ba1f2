// CpuTimers: the interval timers that count processor time (setitimer(2): ITIMER_VIRTUAL,
// ITIMER_PROF) of a process whose threads use processors of several nodes. The kernel of its home
// counts only what they use there, so these are home's: it looks at them when it knows what was
// used everywhere. Pure. Threads: any, one at a time. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/time.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "spread/cpu_time.h"

namespace krg {

class CpuTimers {
 public:
  static bool is_one(int which) { return which == ITIMER_VIRTUAL || which == ITIMER_PROF; }
  // Whether the kernel would take it.
  static bool is_valid(const itimerval& timer);

  // As setitimer(2): the timer before. `used`: by the process, everywhere. REQUIRES: is_one(which),
  // is_valid(timer).
  itimerval set(int which, const itimerval& timer, const CpuTime& used);
  itimerval get(int which, const CpuTime& used) const;
  bool is_any_set() const;
  // The signals of those that have expired, one for each, however often it has (as the kernel's
  // look at each tick tells).
  std::vector<int> take_expired(const CpuTime& used);
  // Processor time in ns that the process has yet to use till one expires, at least 0. Nothing:
  // none is set.
  std::optional<int64_t> next(const CpuTime& used) const;

 private:
  struct Timer {
    std::optional<int64_t> expires_ns;  // on the process's clock
    int64_t interval_ns = 0;
  };
  static int64_t clock_of(size_t timer, const CpuTime& used) {
    return timer == kVirtual ? used.user_ns : used.total_ns();
  }
  static size_t index_of(int which) { return which == ITIMER_VIRTUAL ? kVirtual : kProfiling; }
  static constexpr size_t kVirtual = 0, kProfiling = 1;
  std::array<Timer, 2> timers_;
};

}  // namespace krg
