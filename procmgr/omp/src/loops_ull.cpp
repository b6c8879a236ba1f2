// Loops with an iteration variable of type unsigned long long. `step` of a loop that counts down is
// negative, modulo 2^64.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "loops.h"

using namespace krg::omp;
using Ull = unsigned long long;

namespace {

bool start(Schedule schedule, bool up, Ull from, Ull to, Ull step, Ull chunk, Ull* first, Ull* last,
           bool ordered = false) {
  return start_loop(range(up, from, to, step), plan_of(unsigned(schedule), chunk), first, last,
                    {.ordered = ordered});
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

bool GOMP_loop_ull_static_start(bool up, Ull from, Ull to, Ull step, Ull chunk, Ull* first,
                                Ull* last) {
  return start(Schedule::fixed, up, from, to, step, chunk, first, last);
}
bool GOMP_loop_ull_dynamic_start(bool up, Ull from, Ull to, Ull step, Ull chunk, Ull* first,
                                 Ull* last) {
  return start(Schedule::dynamic, up, from, to, step, chunk, first, last);
}
bool GOMP_loop_ull_guided_start(bool up, Ull from, Ull to, Ull step, Ull chunk, Ull* first,
                                Ull* last) {
  return start(Schedule::guided, up, from, to, step, chunk, first, last);
}
bool GOMP_loop_ull_runtime_start(bool up, Ull from, Ull to, Ull step, Ull* first, Ull* last) {
  return start(Schedule::run_time, up, from, to, step, 0, first, last);
}
bool GOMP_loop_ull_nonmonotonic_dynamic_start(bool up, Ull from, Ull to, Ull step, Ull chunk,
                                              Ull* first, Ull* last) {
  return start(Schedule::dynamic, up, from, to, step, chunk, first, last);
}
bool GOMP_loop_ull_nonmonotonic_guided_start(bool up, Ull from, Ull to, Ull step, Ull chunk,
                                             Ull* first, Ull* last) {
  return start(Schedule::guided, up, from, to, step, chunk, first, last);
}
bool GOMP_loop_ull_nonmonotonic_runtime_start(bool up, Ull from, Ull to, Ull step, Ull* first,
                                              Ull* last) {
  return start(Schedule::run_time, up, from, to, step, 0, first, last);
}
bool GOMP_loop_ull_maybe_nonmonotonic_runtime_start(bool up, Ull from, Ull to, Ull step, Ull* first,
                                                    Ull* last) {
  return start(Schedule::run_time, up, from, to, step, 0, first, last);
}
bool GOMP_loop_ull_start(bool up, Ull from, Ull to, Ull step, long sched, Ull chunk, Ull* first,
                         Ull* last, ReductionArray reductions, void** scratch) {
  return start_loop(range(up, from, to, step), plan_of(unsigned(sched), chunk), first, last,
                    {.reductions = reductions, .scratch = scratch});
}

bool GOMP_loop_ull_ordered_static_start(bool up, Ull from, Ull to, Ull step, Ull chunk, Ull* first,
                                        Ull* last) {
  return start(Schedule::fixed, up, from, to, step, chunk, first, last, true);
}
bool GOMP_loop_ull_ordered_dynamic_start(bool up, Ull from, Ull to, Ull step, Ull chunk, Ull* first,
                                         Ull* last) {
  return start(Schedule::dynamic, up, from, to, step, chunk, first, last, true);
}
bool GOMP_loop_ull_ordered_guided_start(bool up, Ull from, Ull to, Ull step, Ull chunk, Ull* first,
                                        Ull* last) {
  return start(Schedule::guided, up, from, to, step, chunk, first, last, true);
}
bool GOMP_loop_ull_ordered_runtime_start(bool up, Ull from, Ull to, Ull step, Ull* first,
                                         Ull* last) {
  return start(Schedule::run_time, up, from, to, step, 0, first, last, true);
}
bool GOMP_loop_ull_ordered_start(bool up, Ull from, Ull to, Ull step, long sched, Ull chunk,
                                 Ull* first, Ull* last, ReductionArray reductions, void** scratch) {
  return start_loop(range(up, from, to, step), plan_of(unsigned(sched), chunk), first, last,
                    {.ordered = true, .reductions = reductions, .scratch = scratch});
}

bool GOMP_loop_ull_static_next(Ull* first, Ull* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_ull_dynamic_next(Ull* first, Ull* last) {
  return next_of_dynamic_loop(first, last);
}
bool GOMP_loop_ull_guided_next(Ull* first, Ull* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_ull_runtime_next(Ull* first, Ull* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_ull_nonmonotonic_dynamic_next(Ull* first, Ull* last) {
  return next_of_dynamic_loop(first, last);
}
bool GOMP_loop_ull_nonmonotonic_guided_next(Ull* first, Ull* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_ull_nonmonotonic_runtime_next(Ull* first, Ull* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_ull_maybe_nonmonotonic_runtime_next(Ull* first, Ull* last) {
  return next_of_loop(first, last);
}
bool GOMP_loop_ull_ordered_static_next(Ull* first, Ull* last) {
  return next_of_ordered_loop(first, last);
}
bool GOMP_loop_ull_ordered_dynamic_next(Ull* first, Ull* last) {
  return next_of_ordered_loop(first, last);
}
bool GOMP_loop_ull_ordered_guided_next(Ull* first, Ull* last) {
  return next_of_ordered_loop(first, last);
}
bool GOMP_loop_ull_ordered_runtime_next(Ull* first, Ull* last) {
  return next_of_ordered_loop(first, last);
}
}
