// ShortTurns: while it exists, threads that share a processor, whosever they are, take turns of a
// fraction of a millisecond there. The scheduler lets who computes go on till its next tick, 1 to
// 10 ms, however short a slice it was given; here a thread of this process's that wants little
// wakes up on each of the processors ever again, and the scheduler then looks who is next. For
// threads that look for what another one writes, which the same processor has yet to run. It costs
// some hundredths of each processor. Source: kernel/sched/fair.c (update_curr).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <set>
#include <thread>
#include <vector>

namespace krg {

class ShortTurns {
 public:
  // On these processors, by the kernel's numbers; those that it may not use are left out.
  ShortTurns(const std::set<unsigned>& processors, std::chrono::microseconds turn);
  ~ShortTurns() = default;  // waits for a turn
  ShortTurns(const ShortTurns&) = delete;
  ShortTurns& operator=(const ShortTurns&) = delete;

 private:
  std::vector<std::jthread> threads_;
};

}  // namespace krg
