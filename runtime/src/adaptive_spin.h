// AdaptiveSpin: how long a transport looks for work itself before it lets the loop block. Spinning
// pays while answers come within microseconds; as soon as they do not, it stops, so that an idle
// node costs nothing. Owner: a transport. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sched.h>

#include <chrono>

namespace krg {

class AdaptiveSpin {
 public:
  using Clock = std::chrono::steady_clock;
  // Longer than a wake-up of the peer on a busy machine takes (60 µs each way): else both sides
  // give up just before the answer comes, and stay in that mode.
  static constexpr std::chrono::microseconds kLongest{200};
  // Woken so soon, the loop is in a conversation in which spinning pays.
  static constexpr std::chrono::microseconds kSoon{200};
  // So long it keeps the core to itself.
  static constexpr std::chrono::microseconds kAlone{20};

  // Calls `look` until it returns true (found something) or the budget is used up; tells which.
  template <class Look>
  bool spin(Look look) {
    if (look()) return reward();
    const auto start = Clock::now();
    if (blocked_at_ != Clock::time_point{} && start - blocked_at_ < kSoon) reward();
    blocked_at_ = {};
    for (auto spun = start - start; spun < budget_; spun = Clock::now() - start) {
      if (look()) return reward();
      // Whoever has work goes first: programs, or the peer on this very core.
      if (spun > kAlone) sched_yield();
    }
    budget_ /= 2;
    if (budget_ < std::chrono::microseconds(4)) budget_ = {};
    return false;
  }
  // The loop is about to block.
  void blocks() { blocked_at_ = Clock::now(); }

 private:
  bool reward() {
    budget_ = kLongest;
    return true;
  }

  std::chrono::nanoseconds budget_{0};
  Clock::time_point blocked_at_{};
};

}  // namespace krg
