// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/loop_precedence.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ctime>

#include "cycle_counter.h"
#include "krg/runtime/short_slice.h"

namespace krg {
namespace {

constexpr int kFirst = -20, kOrdinary = 0;
// So long is looked at together: 2 to 8 ms, by how fast the processor counts.
constexpr uint64_t kWindowCycles = 8'000'000;

std::chrono::nanoseconds now_of(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

bool set_niceness(int niceness) {
  return setpriority(PRIO_PROCESS, 0, niceness) == 0;  // of this thread only
}

// What this thread makes later does not inherit a negative niceness.
bool keep_from_children() {
  SchedulingOfThread attributes{};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0) return false;
  if (attributes.policy != SCHED_OTHER || attributes.nice != kOrdinary) return false;
  attributes.flags |= kResetOnFork;
  return syscall(SYS_sched_setattr, 0, &attributes, 0) == 0;
}

}  // namespace

LoopPrecedence::LoopPrecedence(EventLoop& loop) {
  if (!keep_from_children() || !set_niceness(kFirst)) return;
  first_ = true;
  hook_ = loop.add_idle_hook([this] { return look(); });
}

LoopPrecedence::~LoopPrecedence() {
  go_first(false);
}

std::chrono::microseconds LoopPrecedence::look() {
  const uint64_t cycles = cycle_counter();
  if (cycles - looked_at_ >= kWindowCycles) {
    looked_at_ = cycles;
    const auto used = now_of(CLOCK_THREAD_CPUTIME_ID), passed = now_of(CLOCK_MONOTONIC);
    go_first(deserved(used - used_, passed - passed_));
    used_ = used;
    passed_ = passed;
  }
  return std::chrono::hours(1);
}

void LoopPrecedence::go_first(bool first) {
  if (first != first_ && set_niceness(first ? kFirst : kOrdinary)) first_ = first;
}

}  // namespace krg
