// How threads of a team wait: microseconds of looking, then a futex; when there are more threads
// than processors they yield in between. Any thread. Members of a team on several nodes wait by
// team calls instead (distant.h). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <atomic>
#include <climits>
#include <cstdint>

namespace krg::omp {

// What the processors may be used for while waiting. Set once by the environment, `threads` by
// forks and joins.
struct Spinning {
  unsigned processors = 1;
  std::atomic<unsigned> threads{1};
  std::uint64_t default_ns = 0;  // how long to look before sleeping
  bool bound = false;            // threads have places

  [[nodiscard]] bool allowed() const {
    return threads.load(std::memory_order_relaxed) <= processors;
  }
};
extern Spinning spinning;

inline void pause_processor() {
  __builtin_ia32_pause();
}
// True: woken by futex_wake; else the word was another one, or a signal came.
bool futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t seen);
// Returns how many it woke.
long futex_wake(const std::atomic<std::uint32_t>& word, int waiters);
std::uint64_t now_ns();

// Where all processors are busy the kernel may wake a thread on its waker's processor. Both go on
// with the same region, so each would spin while the other one wants that processor, and it would
// stay so: a thread that wakes on `processor` moves to another one that it may use. Not when there
// are more threads than processors, or threads have places.
void leave_processor(int processor);
int processor_here();

// Looks until `ready()` or until the time allowed is over; the last answer of `ready`. `looks`:
// between two looks at the clock.
template <class Ready>
bool look_for(const Ready& ready, int looks = 32) {
  if (!spinning.allowed()) return ready();
  std::uint64_t end = 0;
  for (;;) {
    for (int i = 0; i < looks; ++i) {
      if (ready()) return true;
      pause_processor();
    }
    const std::uint64_t now = now_ns();
    if (end == 0) end = now + spinning.default_ns;
    if (now >= end || !spinning.allowed()) return ready();
  }
}

// Where there are more threads than processors: lets other threads have this one for a moment.
// False: whoever had it computes, so that who sleeps is back sooner; also for a while after that.
bool yield_processor();

// The same as look_for() there: a team's threads of one processor come to a barrier one after the
// other, without being put to sleep and woken.
template <class Ready>
bool look_yielding(const Ready& ready) {
  if (ready()) return true;
  if (spinning.default_ns == 0) return false;
  const std::uint64_t end = now_ns() + spinning.default_ns;
  while (yield_processor()) {
    if (ready()) return true;
    if (now_ns() >= end) return false;
  }
  return ready();
}

// Threads that wait for conditions which others make true. Whoever makes one true does so by a
// sequentially consistent operation (or under a Mutex), then calls wake_all or wake_one: which
// costs one load when nobody sleeps.
class EventCount {
 public:
  // `asleep`: counts who sleeps here, and elsewhere.
  template <class Ready>
  void wait(const Ready& ready, std::atomic<unsigned>* asleep = nullptr) {
    if (spinning.allowed() ? look_for(ready) : look_yielding(ready)) return;
    if (asleep != nullptr) asleep->fetch_add(1, std::memory_order_relaxed);
    sleep_until(ready);
    if (asleep != nullptr) asleep->fetch_sub(1, std::memory_order_relaxed);
  }

  void wake_all() { wake(INT_MAX); }

  // True when somebody slept that nobody else has woken.
  bool wake_one() { return wake(1); }

 private:
  template <class Ready>
  void sleep_until(const Ready& ready) {
    for (;;) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      const std::uint32_t seen = events_.load(std::memory_order_seq_cst);
      const bool is_ready = ready();
      if (is_ready || !futex_wait(events_, seen)) sleepers_.fetch_sub(1, std::memory_order_relaxed);
      if (is_ready) return;
      leave_processor(waker_processor_.load(std::memory_order_relaxed));
    }
  }

  bool wake(int waiters) {
    if (sleepers_.load(std::memory_order_seq_cst) == 0) return false;
    waker_processor_.store(processor_here(), std::memory_order_relaxed);
    events_.fetch_add(1, std::memory_order_seq_cst);
    const long woken = futex_wake(events_, waiters);
    if (woken <= 0) return false;
    sleepers_.fetch_sub(std::uint32_t(woken), std::memory_order_seq_cst);
    return true;
  }

  std::atomic<std::uint32_t> events_{0};
  // Whoever wakes one counts it out: until it has a processor nobody wakes it again.
  std::atomic<std::uint32_t> sleepers_{0};
  std::atomic<int> waker_processor_{-1};
};

// A lock of four bytes; all zero is unlocked, so it may also lie in a program's omp_lock_t.
class Mutex {
 public:
  // `least_looks`: how often to look before sleeping even where there are more threads than
  // processors: for sections so short that their holder is running most likely.
  void lock(int least_looks = 0) {
    if (!try_lock()) lock_slowly(least_looks);
  }
  bool try_lock() {
    std::uint32_t free = kFree;
    return state_.compare_exchange_strong(free, kHeld, std::memory_order_seq_cst);
  }
  [[nodiscard]] bool is_held() const { return state_.load(std::memory_order_seq_cst) != kFree; }
  void unlock() {
    if (state_.exchange(kFree, std::memory_order_seq_cst) == kWanted) futex_wake(state_, 1);
  }

 private:
  static constexpr std::uint32_t kFree = 0, kHeld = 1, kWanted = 2;
  void lock_slowly(int least_looks);

  std::atomic<std::uint32_t> state_{kFree};
};
static_assert(sizeof(Mutex) == 4);

// Holds a Mutex for a scope.
class Locked {
 public:
  explicit Locked(Mutex& mutex) : mutex_(mutex) { mutex_.lock(); }
  ~Locked() { mutex_.unlock(); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace krg::omp
