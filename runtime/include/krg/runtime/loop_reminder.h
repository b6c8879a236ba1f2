// LoopReminder: sees to it that a loop that has much to do gets its processor soon where programs
// compute there. The scheduler gives a thread that is woken the processor at once unless it has
// lately had more than its share of it; who has been so comes behind the next tick, 1 to 10 ms
// later, though it is its turn some microseconds later. A loop that answers page faults has run a
// moment ago each time that it is woken. So while its thread has to wait for a processor much of
// the time, another thread that wants little wakes up there each tenth of a millisecond: the
// scheduler then looks who is next. It costs some hundredths of that processor, while the loop has
// work. Linux 6.6 or newer; older ones have another scheduler, which needs none of it.
//
// Owner: whoever runs the loop; created in the loop's thread, for which it holds.
// Source: kernel/sched/fair.c (check_preempt_wakeup_fair, entity_eligible), sched-stats.rst.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class LoopReminder {
 public:
  explicit LoopReminder(EventLoop& loop);
  ~LoopReminder();
  LoopReminder(const LoopReminder&) = delete;
  LoopReminder& operator=(const LoopReminder&) = delete;

  // Whether a thread that has waited for a processor for so much of that time needs it.
  static bool is_needed(std::chrono::nanoseconds waited, std::chrono::nanoseconds passed) {
    return 20 * waited > passed;
  }
  // It wakes up ever again.
  bool is_awake() const { return is_awake_.load(std::memory_order_relaxed); }

 private:
  std::chrono::microseconds look();
  bool waits_for_its_processor();
  void remind(const std::stop_token& stop);

  UniqueFd waits_;            // the loop's thread's /proc/PID/task/TID/schedstat
  uint64_t looked_at_ = 0;    // in cycles
  uint64_t wanted_till_ = 0;  // likewise
  std::chrono::nanoseconds waited_{}, passed_{};
  std::atomic<uint64_t> worked_at_{0};  // in cycles: when the loop last had something to do
  std::atomic<int> processor_{-1};      // where
  std::atomic<bool> is_awake_{false};
  EventLoop::IdleHook hook_;
  std::jthread thread_;
};

}  // namespace krg
