// SPDX-License-Identifier: GPL-2.0-or-later
#include "waiting.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace krg::omp {

Spinning spinning;

namespace {
// Between two looks at a lock, where there is a processor for each thread (3 µs) and where not.
constexpr unsigned kMostPauses = 64, kMostPausesIfShared = 16;
constexpr int kLooksPerClock = 8;

// Who comes back from a yield this late has waited for one that computes: then so many waits are
// without yields, twice as many each time that it happens again.
constexpr std::uint64_t kLate_ns = 100'000;
constexpr unsigned kLeastSkipped = 64, kMostSkipped = 4096;
thread_local unsigned yields_to_skip = 0, yields_skipped_last = 0;
}  // namespace

bool futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t seen) {
  const int kept = errno;
  const long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
  errno = kept;
  return result == 0;
}

long futex_wake(const std::atomic<std::uint32_t>& word, int waiters) {
  const int kept = errno;
  const long woken = syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, waiters, nullptr, nullptr, 0);
  errno = kept;
  return woken;
}

std::uint64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::uint64_t(now.tv_sec) * 1'000'000'000U + std::uint64_t(now.tv_nsec);
}

bool yield_processor() {
  if (yields_to_skip != 0) {
    --yields_to_skip;
    return false;
  }
  const std::uint64_t before = now_ns();
  sched_yield();
  if (now_ns() - before < kLate_ns) {
    yields_skipped_last -= yields_skipped_last != 0 ? 1 : 0;
    return true;
  }
  yields_skipped_last = std::clamp(2 * yields_skipped_last, kLeastSkipped, kMostSkipped);
  yields_to_skip = yields_skipped_last;
  return false;
}

int processor_here() {
  return sched_getcpu();
}

void leave_processor(int processor) {
  if (processor < 0 || processor >= CPU_SETSIZE || spinning.bound || !spinning.allowed()) return;
  if (sched_getcpu() != processor) return;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(std::size_t(processor), &others);
  if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others) != 0) return;
  sched_setaffinity(0, sizeof allowed, &allowed);
}

void Mutex::lock_slowly(int least_looks) {
  // Each look takes the word's cache line from the one who holds the lock, so looks grow rare.
  const unsigned most = spinning.allowed() ? kMostPauses : kMostPausesIfShared;
  unsigned pauses = 1;
  const auto taken = [&] {
    if (state_.load(std::memory_order_relaxed) == kFree && try_lock()) return true;
    for (unsigned i = 1; i < pauses; ++i) pause_processor();
    pauses = std::min(2 * pauses, most);
    return false;
  };
  if (look_for(taken, kLooksPerClock)) return;
  for (int i = 0; i < least_looks; ++i)
    if (taken()) return;
  while (state_.exchange(kWanted, std::memory_order_seq_cst) != kFree) futex_wait(state_, kWanted);
}

}  // namespace krg::omp
