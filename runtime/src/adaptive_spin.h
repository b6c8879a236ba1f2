// AdaptiveSpin: how long a transport looks for work itself before it lets the loop block. Spinning
// pays while answers come within microseconds; as soon as they do not, it stops, so that an idle
// node costs nothing. Between two looks the loop serves its descriptors: a program's page fault
// does not wait for the end of the spinning. Owner: a transport. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sched.h>

#include <chrono>
#include <cstdlib>

namespace krg {

class AdaptiveSpin {
 public:
  using Clock = std::chrono::steady_clock;
  // How long it spins at the most. Longer than a wake-up of the peer on a busy machine takes (60 µs
  // each way): else both sides give up just before the answer comes, and stay in that mode.
  static constexpr std::chrono::microseconds kLongest{200};
  // Where nodes share cores, the time that one spins is time that another cannot work: just what a
  // conversation between two idle nodes takes.
  static constexpr std::chrono::microseconds kLongestOnSharedCores{15};
  // So long it keeps the core to itself.
  static constexpr std::chrono::microseconds kAlone{5};
  // A yield that takes longer let somebody else run: the core is wanted, and spinning keeps those
  // waiting whose answer is awaited. For so long after that it blocks at once.
  static constexpr std::chrono::microseconds kYieldedTo{3};
  static constexpr std::chrono::microseconds kWanted{2000};

  // KRG_SHARED_CORES=1: this machine has more nodes than it has cores for.
  AdaptiveSpin() : AdaptiveSpin(std::getenv("KRG_SHARED_CORES") != nullptr) {}
  explicit AdaptiveSpin(bool shared_cores)
      : longest_(shared_cores ? kLongestOnSharedCores : kLongest),
        soon_(shared_cores ? 3 * longest_ : longest_) {}

  // Calls `look`, which returns whether it found something to do. True: look again, as soon as
  // whatever else is ready has been served; false: block.
  template <class Look>
  bool spin(Look look) {
    if (look()) return reward();
    const auto now = Clock::now();
    if (started_ == Clock::time_point{}) {
      if (blocked_at_ != Clock::time_point{} && now - blocked_at_ < soon_) reward();
      blocked_at_ = {};
      started_ = now;
    }
    if (now < wanted_until_) return give_up();
    if (now - started_ >= budget_) {
      budget_ /= 2;
      if (budget_ < std::chrono::microseconds(4)) budget_ = {};
      return give_up();
    }
    // Whoever has work goes first: programs, or the peer on this very core.
    if (now - started_ < kAlone) return true;
    sched_yield();
    const auto after = Clock::now();
    if (after - now >= kYieldedTo) wanted_until_ = after + kWanted;
    return true;
  }
  // The loop is about to block.
  void blocks() { blocked_at_ = Clock::now(); }

 private:
  bool reward() {
    budget_ = longest_;
    started_ = {};
    return true;
  }
  bool give_up() {
    started_ = {};
    return false;
  }

  const std::chrono::microseconds longest_;
  const std::chrono::microseconds soon_;  // woken so soon, it is in a conversation: spinning pays
  std::chrono::nanoseconds budget_{0};
  Clock::time_point started_{};  // this spinning; else zero
  Clock::time_point blocked_at_{};
  Clock::time_point wanted_until_{};
};

}  // namespace krg
