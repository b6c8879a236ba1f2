// Parallel regions, their cancellation, and the constructs that members meet inside: barrier,
// single, sections, scope, ordered, tasks' waits.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "distant.h"
#include "loops.h"

namespace krg::omp {
namespace {

void describe_sections(WorkShare& share, unsigned count) {
  describe_loop(share, range(true, 0, count, 1), Schedule::dynamic, 1);
}

unsigned next_section(Thread& thread) {
  std::uint64_t begin = 0, end = 0;
  return next_chunk(thread, begin, end) ? unsigned(begin) + 1 : 0;
}

unsigned start_sections(unsigned count, ReductionArray reductions, void** scratch) {
  enter_loop(range(true, 0, count, 1), {Schedule::dynamic, 1},
             {.reductions = reductions, .scratch = scratch});
  return next_section(this_thread());
}

bool told_to_cancel(const Thread& thread, int which) {
  const Team& team = *thread.at.team;
  if (team.cancelled.load(std::memory_order_relaxed)) return true;
  if ((which & (kCancelLoop | kCancelSections)) != 0)
    return team.distant
               ? team.cancelled_share.load(std::memory_order_relaxed) == thread.at.share_number + 1
               : team.share_cancelled.load(std::memory_order_relaxed);
  const TaskGroup* group = thread.at.task->group;
  return (which & kCancelTaskGroup) != 0 && group != nullptr && group->is_cancelled();
}

}  // namespace
}  // namespace krg::omp

using namespace krg::omp;
#pragma GCC visibility push(default)
extern "C" {

void GOMP_parallel(Function function, void* data, unsigned threads, unsigned flags) {
  parallel(function, data, team_size(threads, 0), flags, [](Team&) {});
}

void GOMP_parallel_start(Function function, void* data, unsigned threads) {
  run_team(start_team(team_size(threads, 0), 0), function, data);
}
void GOMP_parallel_end() {
  end_team();
}

// The first word of `data` is the array of the region's reductions. Its owner combines and frees
// the copies afterwards.
unsigned GOMP_parallel_reductions(Function function, void* data, unsigned threads, unsigned flags) {
  const unsigned size = team_size(threads, 0);
  TaskGroup group;
  register_reductions(group, *static_cast<ReductionArray*>(data), nullptr, size);
  parallel(function, data, size, flags, [&](Team& team) { team.group = &group; });
  return size;
}

bool GOMP_cancel(int which, bool do_cancel) {
  if (!settings.cancellation) return false;
  Thread& thread = this_thread();
  Team& team = *thread.at.team;
  if (!do_cancel) return told_to_cancel(thread, which);
  if ((which & kCancelParallel) != 0) {
    cancel_region(team);
  } else if ((which & kCancelTaskGroup) != 0) {
    TaskGroup* group = thread.at.task->group;
    if (group != nullptr && group->of_work_share && group->outer != nullptr) group = group->outer;
    if (group != nullptr) group->cancel();
  } else if (team.distant) {
    team.cancelled_share.store(thread.at.share_number + 1);
  } else {
    team.share_cancelled.store(true, std::memory_order_relaxed);
  }
  return true;
}

bool GOMP_cancellation_point(int which) {
  return settings.cancellation && told_to_cancel(this_thread(), which);
}

void GOMP_barrier() {
  wait_at_barrier(this_thread(), false, __builtin_return_address(0));
}
bool GOMP_barrier_cancel() {
  return wait_at_barrier(this_thread(), true, __builtin_return_address(0));
}

bool GOMP_single_start() {
  Thread& thread = this_thread();
  Team& team = *thread.at.team;
  if (team.distant) return distant::single(thread);
  std::uint32_t mine = thread.at.singles_met++;
  return team.singles.load(std::memory_order_relaxed) == mine &&
         team.singles.compare_exchange_strong(mine, mine + 1, std::memory_order_acq_rel);
}

// Null: the caller executes the block and calls GOMP_single_copy_end. Else what the one that did
// gave it; the program has a barrier after it has read that.
void* GOMP_single_copy_start() {
  if (GOMP_single_start()) return nullptr;
  Thread& thread = this_thread();
  if (thread.at.team->distant) {
    std::uint64_t word = 0;
    distant::barrier(thread, false, __builtin_return_address(0), 0, &word);
    return reinterpret_cast<void*>(std::uintptr_t(word));
  }
  wait_at_barrier(thread, false, __builtin_return_address(0));
  return thread.at.team->copy_private;
}
void GOMP_single_copy_end(void* data) {
  Thread& thread = this_thread();
  if (thread.at.team->distant) {
    distant::barrier(thread, false, __builtin_return_address(0),
                     std::uint64_t(reinterpret_cast<std::uintptr_t>(data)));
    return;
  }
  thread.at.team->copy_private = data;
  wait_at_barrier(thread, false, __builtin_return_address(0));
}

unsigned GOMP_sections_start(unsigned count) {
  return start_sections(count, nullptr, nullptr);
}
unsigned GOMP_sections2_start(unsigned count, ReductionArray reductions, void** scratch) {
  return start_sections(count, reductions, scratch);
}
unsigned GOMP_sections_next() {
  return next_section(this_thread());
}
void GOMP_parallel_sections(Function function, void* data, unsigned threads, unsigned count,
                            unsigned flags) {
  parallel(function, data, team_size(threads, count), flags,
           [&](Team& team) { describe_sections(claim_first_share(team), count); });
}
void GOMP_parallel_sections_start(Function function, void* data, unsigned threads, unsigned count) {
  Team& team = start_team(team_size(threads, count), 0);
  describe_sections(claim_first_share(team), count);
  run_team(team, function, data);
}
void GOMP_sections_end() {
  Thread& thread = this_thread();
  leave_share(thread);
  wait_at_barrier(thread, false, __builtin_return_address(0));
}
void GOMP_sections_end_nowait() {
  leave_share(this_thread());
}
bool GOMP_sections_end_cancel() {
  Thread& thread = this_thread();
  leave_share(thread);
  return wait_at_barrier(thread, true, __builtin_return_address(0));
}

void GOMP_scope_start(ReductionArray reductions) {
  if (reductions == nullptr) return;
  enter_loop(range(true, 0, 0, 1), {Schedule::dynamic, 1}, {.reductions = reductions});
  leave_share(this_thread());
}

void GOMP_ordered_start() {
  wait_for_turn(this_thread());
}
void GOMP_ordered_end() {}

void GOMP_task(Function function, void* data, CopyFunction copy, long bytes, long alignment,
               bool if_clause, unsigned flags, void** depend, int priority, void* detach) {
  create_task(function, data, copy, bytes, alignment, if_clause, flags, depend, priority, detach);
}
void GOMP_taskwait() {
  wait_for_children();
}
void GOMP_taskwait_depend(void** depend) {
  wait_for_dependences(depend);
}
void GOMP_taskyield() {}
void GOMP_taskgroup_start() {
  start_task_group();
}
void GOMP_taskgroup_end() {
  end_task_group();
}
}
