// Loops with an iteration variable of type long, and what ends loops of both kinds.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "loops.h"

#include <cstring>

#include "distant.h"

namespace krg::omp {
namespace {

void describe_extras(Thread& thread, WorkShare& share, const LoopExtras& extras) {
  share.ordered = extras.ordered;
  share.turn.store(0, std::memory_order_relaxed);
  if (extras.dimensions != 0) describe_doacross(thread, share, extras.dimensions, extras.counts);
  if (extras.scratch == nullptr) return;
  std::memcpy(&share.scratch_bytes, extras.scratch, sizeof share.scratch_bytes);
  share.scratch = thread.blocks.allocate(Side::program, share.scratch_bytes);
  std::memset(share.scratch, 0, share.scratch_bytes);
}

void parallel_loop(Function function, void* data, unsigned threads, long start, long end, long step,
                   Plan plan, unsigned flags) {
  parallel(function, data, team_size(threads, 0), flags, [&](Team& team) {
    describe_loop(claim_first_share(team), range(start, end, step), plan.schedule, plan.chunk);
  });
}

// For programs of gcc before 4.9, which call `function` on the master themselves, then
// GOMP_parallel_end.
void start_parallel_loop(Function function, void* data, unsigned threads, long start, long end,
                         long step, Plan plan) {
  Team& team = start_team(team_size(threads, 0), 0);
  describe_loop(claim_first_share(team), range(start, end, step), plan.schedule, plan.chunk);
  run_team(team, function, data);
}

bool start(Schedule schedule, long from, long to, long step, long chunk, long* first, long* last,
           bool ordered = false) {
  return start_loop(range(from, to, step), plan_of(unsigned(schedule), std::uint64_t(chunk)), first,
                    last, {.ordered = ordered});
}

}  // namespace

void enter_loop(const Iterations& iterations, Plan plan, const LoopExtras& extras) {
  Thread& thread = this_thread();
  if (thread.at.team->distant) return distant::enter_loop(thread, iterations, plan, extras);
  const bool first = enter_share(thread);
  WorkShare& share = *thread.at.share;
  if (first) {
    describe_loop(share, iterations, plan.schedule, plan.chunk);
    describe_extras(thread, share, extras);
  }
  if (extras.reductions != nullptr) begin_share_reductions(thread, extras.reductions, first);
  if (first) described(thread);
  if (extras.scratch != nullptr) *extras.scratch = share.scratch;
}

}  // namespace krg::omp

using namespace krg::omp;
#pragma GCC visibility push(default)
extern "C" {

bool GOMP_loop_static_start(long from, long to, long step, long chunk, long* first, long* last) {
  return start(Schedule::fixed, from, to, step, chunk, first, last);
}
bool GOMP_loop_dynamic_start(long from, long to, long step, long chunk, long* first, long* last) {
  return start(Schedule::dynamic, from, to, step, chunk, first, last);
}
bool GOMP_loop_guided_start(long from, long to, long step, long chunk, long* first, long* last) {
  return start(Schedule::guided, from, to, step, chunk, first, last);
}
bool GOMP_loop_runtime_start(long from, long to, long step, long* first, long* last) {
  return start(Schedule::run_time, from, to, step, 0, first, last);
}
bool GOMP_loop_nonmonotonic_dynamic_start(long from, long to, long step, long chunk, long* first,
                                          long* last) {
  return start(Schedule::dynamic, from, to, step, chunk, first, last);
}
bool GOMP_loop_nonmonotonic_guided_start(long from, long to, long step, long chunk, long* first,
                                         long* last) {
  return start(Schedule::guided, from, to, step, chunk, first, last);
}
bool GOMP_loop_nonmonotonic_runtime_start(long from, long to, long step, long* first, long* last) {
  return start(Schedule::run_time, from, to, step, 0, first, last);
}
bool GOMP_loop_maybe_nonmonotonic_runtime_start(long from, long to, long step, long* first,
                                                long* last) {
  return start(Schedule::run_time, from, to, step, 0, first, last);
}
bool GOMP_loop_start(long from, long to, long step, long sched, long chunk, long* first, long* last,
                     ReductionArray reductions, void** scratch) {
  return start_loop(range(from, to, step), plan_of(unsigned(sched), std::uint64_t(chunk)), first,
                    last, {.reductions = reductions, .scratch = scratch});
}

bool GOMP_loop_ordered_static_start(long from, long to, long step, long chunk, long* first,
                                    long* last) {
  return start(Schedule::fixed, from, to, step, chunk, first, last, true);
}
bool GOMP_loop_ordered_dynamic_start(long from, long to, long step, long chunk, long* first,
                                     long* last) {
  return start(Schedule::dynamic, from, to, step, chunk, first, last, true);
}
bool GOMP_loop_ordered_guided_start(long from, long to, long step, long chunk, long* first,
                                    long* last) {
  return start(Schedule::guided, from, to, step, chunk, first, last, true);
}
bool GOMP_loop_ordered_runtime_start(long from, long to, long step, long* first, long* last) {
  return start(Schedule::run_time, from, to, step, 0, first, last, true);
}
bool GOMP_loop_ordered_start(long from, long to, long step, long sched, long chunk, long* first,
                             long* last, ReductionArray reductions, void** scratch) {
  return start_loop(range(from, to, step), plan_of(unsigned(sched), std::uint64_t(chunk)), first,
                    last, {.ordered = true, .reductions = reductions, .scratch = scratch});
}

bool GOMP_loop_static_next(long* first, long* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_dynamic_next(long* first, long* last) {
  return next_of_dynamic_loop(first, last);
}
bool GOMP_loop_guided_next(long* first, long* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_runtime_next(long* first, long* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_nonmonotonic_dynamic_next(long* first, long* last) {
  return next_of_dynamic_loop(first, last);
}
bool GOMP_loop_nonmonotonic_guided_next(long* first, long* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_nonmonotonic_runtime_next(long* first, long* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_maybe_nonmonotonic_runtime_next(long* first, long* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_ordered_static_next(long* first, long* last) {
  return next_of_ordered_loop(first, last);
}
bool GOMP_loop_ordered_dynamic_next(long* first, long* last) {
  return next_of_ordered_loop(first, last);
}
bool GOMP_loop_ordered_guided_next(long* first, long* last) {
  return next_of_ordered_loop(first, last);
}
bool GOMP_loop_ordered_runtime_next(long* first, long* last) {
  return next_of_ordered_loop(first, last);
}

void GOMP_parallel_loop_static(Function function, void* data, unsigned threads, long from, long to,
                               long step, long chunk, unsigned flags) {
  parallel_loop(function, data, threads, from, to, step, {Schedule::fixed, std::uint64_t(chunk)},
                flags);
}
void GOMP_parallel_loop_dynamic(Function function, void* data, unsigned threads, long from, long to,
                                long step, long chunk, unsigned flags) {
  parallel_loop(function, data, threads, from, to, step,
                plan_of(unsigned(Schedule::dynamic), std::uint64_t(chunk)), flags);
}
void GOMP_parallel_loop_guided(Function function, void* data, unsigned threads, long from, long to,
                               long step, long chunk, unsigned flags) {
  parallel_loop(function, data, threads, from, to, step,
                plan_of(unsigned(Schedule::guided), std::uint64_t(chunk)), flags);
}
void GOMP_parallel_loop_runtime(Function function, void* data, unsigned threads, long from, long to,
                                long step, unsigned flags) {
  parallel_loop(function, data, threads, from, to, step, plan_of(0, 0), flags);
}
void GOMP_parallel_loop_nonmonotonic_dynamic(Function function, void* data, unsigned threads,
                                             long from, long to, long step, long chunk,
                                             unsigned flags) {
  GOMP_parallel_loop_dynamic(function, data, threads, from, to, step, chunk, flags);
}
void GOMP_parallel_loop_nonmonotonic_guided(Function function, void* data, unsigned threads,
                                            long from, long to, long step, long chunk,
                                            unsigned flags) {
  GOMP_parallel_loop_guided(function, data, threads, from, to, step, chunk, flags);
}
void GOMP_parallel_loop_nonmonotonic_runtime(Function function, void* data, unsigned threads,
                                             long from, long to, long step, unsigned flags) {
  parallel_loop(function, data, threads, from, to, step, plan_of(0, 0), flags);
}
void GOMP_parallel_loop_maybe_nonmonotonic_runtime(Function function, void* data, unsigned threads,
                                                   long from, long to, long step, unsigned flags) {
  parallel_loop(function, data, threads, from, to, step, plan_of(0, 0), flags);
}

void GOMP_parallel_loop_static_start(Function function, void* data, unsigned threads, long from,
                                     long to, long step, long chunk) {
  start_parallel_loop(function, data, threads, from, to, step,
                      {Schedule::fixed, std::uint64_t(chunk)});
}
void GOMP_parallel_loop_dynamic_start(Function function, void* data, unsigned threads, long from,
                                      long to, long step, long chunk) {
  start_parallel_loop(function, data, threads, from, to, step,
                      plan_of(unsigned(Schedule::dynamic), std::uint64_t(chunk)));
}
void GOMP_parallel_loop_guided_start(Function function, void* data, unsigned threads, long from,
                                     long to, long step, long chunk) {
  start_parallel_loop(function, data, threads, from, to, step,
                      plan_of(unsigned(Schedule::guided), std::uint64_t(chunk)));
}
void GOMP_parallel_loop_runtime_start(Function function, void* data, unsigned threads, long from,
                                      long to, long step) {
  start_parallel_loop(function, data, threads, from, to, step, plan_of(0, 0));
}

void GOMP_loop_end() {
  Thread& thread = this_thread();
  leave_share(thread);
  wait_at_barrier(thread, false, __builtin_return_address(0));
}
void GOMP_loop_end_nowait() {
  leave_share(this_thread());
}
bool GOMP_loop_end_cancel() {
  Thread& thread = this_thread();
  leave_share(thread);
  return wait_at_barrier(thread, true, __builtin_return_address(0));
}
}
