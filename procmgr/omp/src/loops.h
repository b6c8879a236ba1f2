// What the ABI's loop functions have in common, for long and for unsigned long long iteration
// variables.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <algorithm>

#include "team.h"

namespace krg::omp {

struct Plan {
  Schedule schedule;
  std::uint64_t chunk;
};

// `sched` as in the ABI: runtime and auto take what the task's control variables say.
inline Plan plan_of(unsigned sched, std::uint64_t chunk) {
  auto schedule = Schedule(sched & ~kMonotonic);
  if (schedule == Schedule::run_time || schedule == Schedule::automatic) {
    const Icvs& icvs = this_thread().at.task->icvs;
    schedule = Schedule(icvs.schedule & ~kMonotonic);
    chunk = std::uint64_t(icvs.chunk);
    if (schedule == Schedule::automatic) return {Schedule::fixed, 0};
  }
  if (schedule != Schedule::fixed) chunk = std::max<std::uint64_t>(chunk, 1);
  return {schedule, chunk};
}

inline std::uint64_t trips(std::uint64_t distance, std::uint64_t step) {
  return step == 1 ? distance : (distance - 1) / step + 1;
}

inline Iterations range(long start, long end, long step) {
  const auto from = std::uint64_t(start), to = std::uint64_t(end), by = std::uint64_t(step);
  if (step > 0) return {start < end ? trips(to - from, by) : 0, from, by, to};
  return {start > end ? trips(from - to, -by) : 0, from, by, to};
}

inline Iterations range(bool up, std::uint64_t start, std::uint64_t end, std::uint64_t step) {
  if (up) return {start < end ? trips(end - start, step) : 0, start, step, end};
  return {start > end ? trips(start - end, -step) : 0, start, step, end};
}

// A chunk's bounds as the program counts.
template <class T>
void tell(const WorkShare& share, std::uint64_t begin, std::uint64_t end, T* first, T* last) {
  const Iterations& it = share.iterations;
  *first = T(it.first + begin * it.step);
  *last = T(end == it.count ? it.end : it.first + end * it.step);
}

template <class T>
bool next_of_loop(T* first, T* last) {
  Thread& thread = this_thread();
  std::uint64_t begin = 0, end = 0;
  if (!next_chunk(thread, begin, end)) return false;
  tell(*thread.at.share, begin, end, first, last);
  return true;
}

template <class T>
bool next_of_dynamic_loop(T* first, T* last) {
  Thread& thread = this_thread();
  WorkShare& share = *thread.at.share;
  std::uint64_t begin = 0, end = 0;
  if (__builtin_expect(share.distant, 0)) {
    if (!next_distant_chunk(thread, share, begin, end)) return false;
  } else if (!next_dynamic_chunk(share, begin, end)) {
    return false;
  }
  tell(share, begin, end, first, last);
  return true;
}

template <class T>
bool next_of_ordered_loop(T* first, T* last) {
  hand_on_turn(this_thread());
  return next_of_loop(first, last);
}

// What a construct may want besides its iterations.
struct LoopExtras {
  bool ordered = false;
  ReductionArray reductions = nullptr;
  void** scratch = nullptr;  // in: how many bytes, out: where
  unsigned dimensions = 0;   // doacross
  const std::uint64_t* counts = nullptr;
};
void enter_loop(const Iterations& iterations, Plan plan, const LoopExtras& extras);

template <class T>
bool start_loop(const Iterations& iterations, Plan plan, T* first, T* last,
                const LoopExtras& extras = {}) {
  enter_loop(iterations, plan, extras);
  return first == nullptr || next_of_loop(first, last);
}

void begin_share_reductions(Thread& thread, ReductionArray mine, bool first);

}  // namespace krg::omp
