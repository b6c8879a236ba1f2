// Which tasks are so short that to hand one to another thread takes longer than to run it: their
// maker runs these at once (README.md, "Who may run which task"). One thread's own.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "abi.h"

namespace krg::omp {

// A credit per function tells: each short task that the maker runs itself earns what handing it
// over would have cost; each that turns out to be long costs its time, as others may have been idle
// meanwhile. So long ones never lose more than was gained, but for one of them (or for those of a
// batch, during which nobody waited).
class ShortTasks {
 public:
  [[nodiscard]] bool has(Function function) const {
    const Entry& entry = entries_[place_of(function)];
    return entry.function == function && entry.credit > 0;
  }

  // Before a task that its maker runs at once; the answer is for ran(). A clock costs as much as
  // all else of such a task, so mostly a task's beginning is taken to be the end of the one before:
  // it is longer by what its maker did in between.
  [[nodiscard]] std::uint64_t begin() {
    end_batch();
    return paused_ || after_long_ != 0 ? __rdtsc() : last_end_;
  }

  void ran(Function function, std::uint64_t began, std::uint64_t now = __rdtsc()) {
    last_end_ = now;
    paused_ = false;
    if (!count(function, 1, now - began)) return;
    after_long_ -= after_long_ != 0 ? 1 : 0;
  }

  // Before a task of a function that has() told of, in place of both, while no thread waits for
  // tasks. False: it is to be timed by itself. A batch of such tasks takes one look at the clock.
  [[nodiscard]] bool joins_batch(Function function) {
    if (__builtin_expect(batch_left_ == 0 || function != batch_function_, 0))
      return begin_batch(function, __rdtsc());
    --batch_left_;
    return true;
  }
  [[nodiscard]] bool begin_batch(Function function, std::uint64_t now) {
    end_batch(now);
    if (after_long_ != 0) return false;
    batch_function_ = function;
    batch_began_ = now;
    batch_size_ = std::min(2 * batch_size_, kMostInBatch);
    batch_left_ = batch_size_ - 1;
    return true;
  }
  // What its tasks took is counted, if there is one: before has().
  void end_batch() {
    if (batch_function_ != nullptr) end_batch(__rdtsc());
  }
  void end_batch(std::uint64_t now) {
    if (batch_function_ == nullptr) return;
    Function function = std::exchange(batch_function_, nullptr);
    const unsigned tasks = batch_size_ - std::exchange(batch_left_, 0);
    if (!count(function, tasks, now - batch_began_)) batch_size_ = 1;
    last_end_ = now;
    paused_ = false;
  }

  // The thread waits or begins something else: what it does until its next task is no task's time.
  void pause() {
    end_batch();
    paused_ = true;
  }

 private:
  // Ticks of the processor's clock, some 0.3 to 0.5 ns each.
  static constexpr std::int64_t kEarned = 1024;
  static constexpr std::uint64_t kShort = 1024;
  static constexpr std::int64_t kFirstCredit = -16 * kEarned;
  static constexpr std::int64_t kMostCredit = std::int64_t(1) << 26;
  static constexpr std::int64_t kLeastCredit = -(std::int64_t(1) << 32);
  static constexpr unsigned kTimedAfterLong = 32;
  static constexpr unsigned kMostInBatch = 64;

  struct Entry {
    Function function = nullptr;
    std::int64_t credit = 0;
  };

  static std::size_t place_of(Function function) {
    return (reinterpret_cast<std::uintptr_t>(function) / 16) % kEntries;
  }

  // False: long.
  bool count(Function function, unsigned tasks, std::uint64_t took) {
    Entry& entry = entries_[place_of(function)];
    if (__builtin_expect(took > tasks * kShort || entry.function != function, 0)) {
      count_long(entry, function, took);
      return false;
    }
    entry.credit = std::min(entry.credit + tasks * kEarned, kMostCredit);
    return true;
  }

  [[gnu::noinline]] void count_long(Entry& entry, Function function, std::uint64_t took) {
    if (entry.function != function) entry = {function, kFirstCredit};
    entry.credit -= std::int64_t(std::min<std::uint64_t>(took, -kLeastCredit));
    entry.credit = std::max(entry.credit, kLeastCredit);
    after_long_ = kTimedAfterLong;
  }

  static constexpr std::size_t kEntries = 4;
  std::array<Entry, kEntries> entries_;
  std::uint64_t last_end_ = 0;
  bool paused_ = true;       // since last_end_
  unsigned after_long_ = 1;  // so many of the next ones are timed from a beginning of their own
  // More tasks each time that all of one were short.
  Function batch_function_ = nullptr;
  std::uint64_t batch_began_ = 0;
  unsigned batch_size_ = 1;
  unsigned batch_left_ = 0;
};

}  // namespace krg::omp
