// ShortSlice: the calling thread asks the scheduler for short turns, which it gets soon: krgd works
// for some microseconds at a time, and what it is woken for (a page fault, a message) keeps
// programs waiting, while a program that computes beside it on the same core would keep the core
// for milliseconds. It gets no more of the processor by it. Linux 6.12 or newer; older ones pass
// it over. Threads and processes that it makes later do not have it.
// Source: sched_setattr(2). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <cstdint>

#include "krg/runtime/result.h"

namespace krg {

// The kernel's struct sched_attr: the C library has none, and its headers and the kernel's exclude
// each other.
struct SchedulingOfThread {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime;  // of ordinary threads: how long a turn is, in nanoseconds
  uint64_t deadline;
  uint64_t period;
};

constexpr uint64_t kResetOnFork = 1;  // SCHED_FLAG_RESET_ON_FORK

// Errors: of sched_getattr(2), sched_setattr(2); ENOTSUP: it has a policy without such turns.
Status take_short_slices(std::chrono::microseconds slice);

}  // namespace krg
