// LoopPrecedence: a loop's thread is woken before all else that runs (nice -20), where that is
// allowed, as long as it uses less than an eighth of its processor; a loop that has more to do, or
// spins for answers, takes its turn. A program whose system call waits for the loop is not to wait
// for whoever computes there: until the loop has taken the call up any signal ends it. Where it is
// not allowed (without CAP_SYS_NICE), or the thread has a niceness or policy of its own already, it
// does nothing.
//
// Owner: whoever runs the loop; created in the loop's thread, for which it holds. Threads and
// processes that this thread makes later do not have it. Source: setpriority(2), sched_setattr(2)
// (SCHED_FLAG_RESET_ON_FORK).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>

#include "krg/runtime/event_loop.h"

namespace krg {

class LoopPrecedence {
 public:
  explicit LoopPrecedence(EventLoop& loop);
  ~LoopPrecedence();
  LoopPrecedence(const LoopPrecedence&) = delete;
  LoopPrecedence& operator=(const LoopPrecedence&) = delete;

  // Whether a thread that used so much of its processor in so much time goes first.
  static bool deserved(std::chrono::nanoseconds used, std::chrono::nanoseconds passed) {
    return 8 * used < passed;
  }

 private:
  std::chrono::microseconds look();
  void go_first(bool first);

  bool first_ = false;
  uint64_t looked_at_ = 0;  // in cycles
  std::chrono::nanoseconds used_{}, passed_{};
  EventLoop::IdleHook hook_;
};

}  // namespace krg
