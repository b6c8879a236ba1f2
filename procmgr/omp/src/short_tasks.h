// Which tasks are so short that to hand one to another thread takes longer than to run it: their
// maker runs these at once (README.md, "Who may run which task"). One thread's own.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "abi.h"

namespace krg::omp {

// A credit per function tells: each short task that the maker runs itself earns what handing it
// over would have cost; each that turns out to be long costs its time, as others may have been idle
// meanwhile. So long ones never lose more than was gained, but for one of them.
class ShortTasks {
 public:
  [[nodiscard]] bool has(Function function) const {
    const Entry& entry = entries_[place_of(function)];
    return entry.function == function && entry.credit > 0;
  }

  // Before a task that its maker runs at once; the answer is for ran(). A clock costs as much as
  // all else of such a task, so mostly a task's beginning is taken to be the end of the one before:
  // it is longer by what its maker did in between.
  [[nodiscard]] std::uint64_t begin() const { return timed_ != 0 ? __rdtsc() : last_end_; }

  void ran(Function function, std::uint64_t began, std::uint64_t now = __rdtsc()) {
    last_end_ = now;
    const std::uint64_t took = now - began;
    Entry& entry = entries_[place_of(function)];
    if (__builtin_expect(took <= kShort && entry.function == function, 1)) {
      entry.credit = std::min(entry.credit + kEarned, kMostCredit);
      timed_ -= timed_ != 0 ? 1 : 0;
    } else {
      ran_long(entry, function, took);
    }
  }

  // The thread waits or begins something else: what it does until its next task is no task's time.
  void pause() { timed_ = std::max(timed_, 1U); }

 private:
  // Ticks of the processor's clock, some 0.3 to 0.5 ns each.
  static constexpr std::int64_t kEarned = 1024;
  static constexpr std::uint64_t kShort = 1024;
  static constexpr std::int64_t kFirstCredit = -16 * kEarned;
  static constexpr std::int64_t kMostCredit = std::int64_t(1) << 26;
  static constexpr std::int64_t kLeastCredit = -(std::int64_t(1) << 32);
  static constexpr unsigned kTimedAfterLong = 32;

  struct Entry {
    Function function = nullptr;
    std::int64_t credit = 0;
  };

  static std::size_t place_of(Function function) {
    return (reinterpret_cast<std::uintptr_t>(function) / 16) % kEntries;
  }

  [[gnu::noinline]] void ran_long(Entry& entry, Function function, std::uint64_t took) {
    if (entry.function != function) entry = {function, kFirstCredit};
    entry.credit -= std::int64_t(std::min<std::uint64_t>(took, -kLeastCredit));
    entry.credit = std::max(entry.credit, kLeastCredit);
    timed_ = kTimedAfterLong;
  }

  static constexpr std::size_t kEntries = 4;
  std::array<Entry, kEntries> entries_;
  std::uint64_t last_end_ = 0;
  unsigned timed_ = 1;  // so many of the next ones have a beginning of their own
};

}  // namespace krg::omp
