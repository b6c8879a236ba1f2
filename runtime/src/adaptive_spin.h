// AdaptiveSpin: how long a transport looks for work itself before it lets the loop block. Spinning
// pays while answers come within microseconds; as soon as they do not, it stops, so that an idle
// node costs nothing. It looks for a few microseconds on end (asking the kernel for descriptors
// between any two looks would double what a look costs), then the loop serves its descriptors: a
// program's page fault does not wait for the end of the spinning. Programs may ask for more or less
// of it while they wait (Patience). Owner: a transport. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <emmintrin.h>
#include <sched.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdlib>
#include <utility>

#include "cycle_counter.h"
#include "krg/runtime/patience.h"

namespace krg {

class AdaptiveSpin {
 public:
  using Clock = std::chrono::steady_clock;
  // How long it spins at the most. Longer than a wake-up of the peer on a busy machine takes (60 µs
  // each way): else both sides give up just before the answer comes, and stay in that mode.
  static constexpr std::chrono::microseconds kLongest{200};
  // So long, in cycles, it looks on end and keeps the core to itself: 3 to 10 µs; at first, before
  // it looks at the clock, half a microsecond or a little more. Where nodes share cores, no longer
  // than that: the time that one looks is time that another cannot work.
  static constexpr uint64_t kAlone = 10'000, kAloneOnSharedCores = 1'000, kFirstLooks = 1'500;
  // Looks that take longer than this, in cycles, have moved bytes (20 KiB or more), though nothing
  // is complete yet: part of a large transfer, of which the target of a get learns nothing else.
  static constexpr uint64_t kMovedBytes = 10'000;
  // A yield that takes longer may have let somebody else run (or served an interrupt): then the
  // core is wanted, and spinning keeps those waiting whose answer is awaited. For so long after
  // that it blocks at once: who is woken by a message goes before a program that computes, who has
  // yielded to it waits. Where nodes share cores, a yield lets the others have their short turns,
  // which are part of the conversation: blocking and being woken would cost each of them more.
  static constexpr std::chrono::microseconds kYieldedTo{3}, kYieldedToOnSharedCores{100};
  static constexpr std::chrono::microseconds kWanted{2000};
  // Woken so soon after it has blocked, it is in a conversation: spinning pays. Where nodes share
  // cores, descriptors of programs wake it all the time.
  static constexpr std::chrono::microseconds kSoon{200}, kSoonOnSharedCores{45};

  // KRG_SHARED_CORES=1: this machine has more nodes than it has cores for. looks_per_reading: so
  // many looks go between two readings of the cycle counter, where reading costs as much as a look.
  // `patience`: null: nobody asks for more or less.
  AdaptiveSpin(int looks_per_reading, const Patience* patience)
      : AdaptiveSpin(looks_per_reading, patience, std::getenv("KRG_SHARED_CORES") != nullptr) {}
  AdaptiveSpin(int looks_per_reading, const Patience* patience, bool shared_cores)
      : looks_per_reading_(looks_per_reading),
        patience_(patience),
        alone_(shared_cores ? kAloneOnSharedCores : kAlone),
        yielded_to_(shared_cores ? kYieldedToOnSharedCores : kYieldedTo),
        soon_(shared_cores ? kSoonOnSharedCores : kSoon) {}

  enum class Found {
    kWork,     // and handled it: look again, as soon as whatever else is ready has been served
    kNothing,  // yet: serve the descriptors, then look again
    kNoHope,   // block
  };
  // Calls `look`, which returns whether it found something to do, for some microseconds. One that
  // took long counts as one that did.
  template <class Look>
  Found spin(Look look) {
    const auto patience = patience_ ? patience_->now() : Patience::Kind::kUsual;
    if (patience == Patience::Kind::kNone) return look() ? Found::kWork : give_up();
    const bool is_endless = patience == Patience::Kind::kEndless;
    if (budget_.count() > 0 || is_endless ? look_some(look) || look_for(kFirstLooks, look) : look())
      return reward();
    auto now = Clock::now();
    if (started_ == Clock::time_point{}) {
      if (blocked_at_ != Clock::time_point{} && now - blocked_at_ < soon_) reward();
      blocked_at_ = {};
      started_ = now;
    }
    if (now < wanted_until_) return give_up();
    if (!is_endless && now - started_ >= budget_) {
      budget_ /= 2;
      if (budget_ < std::chrono::microseconds(4)) budget_ = {};
      return give_up();
    }
    if (look_for(alone_, look)) return reward();
    now = Clock::now();
    // Whoever has work goes first: programs, or the peer on this very core.
    sched_yield();
    const auto after = Clock::now();
    if (after - now >= yielded_to_ && was_switched()) wanted_until_ = after + kWanted;
    return Found::kNothing;
  }
  // The loop is about to block.
  void blocks() { blocked_at_ = Clock::now(); }

 private:
  Found reward() {
    budget_ = kLongest;
    started_ = {};
    return Found::kWork;
  }
  template <class Look>
  bool look_some(Look& look) const {
    for (int i = 0; i < looks_per_reading_; ++i) {
      if (look()) return true;
      _mm_pause();  // the core's other thread, where it has one, may be the peer
    }
    return false;
  }
  template <class Look>
  bool look_for(uint64_t cycles, Look& look) const {
    const uint64_t start = cycle_counter();
    for (uint64_t before = start;;) {
      if (look_some(look)) return true;
      const uint64_t now = cycle_counter();
      if (now - before > kMovedBytes) return true;
      if (now - start >= cycles) return false;
      before = now;
    }
  }
  // Whether others have run on this thread's core, without its having blocked, since last asked.
  bool was_switched() {
    rusage used{};
    getrusage(RUSAGE_THREAD, &used);
    return std::exchange(switches_, used.ru_nivcsw) != used.ru_nivcsw;
  }
  Found give_up() {
    started_ = {};
    return Found::kNoHope;
  }

  const int looks_per_reading_;
  const Patience* const patience_;
  const uint64_t alone_;
  const std::chrono::microseconds yielded_to_;
  const std::chrono::microseconds soon_;
  std::chrono::nanoseconds budget_{0};
  Clock::time_point started_{};  // this spinning; else zero
  Clock::time_point blocked_at_{};
  Clock::time_point wanted_until_{};
  long switches_ = 0;
};

}  // namespace krg
