// Explicit tasks of a team on several nodes. Each member queues the tasks that it makes, in pages
// of its own, and runs them itself but for those that it gives to krgd, where members that have
// nothing to do get them (team_call.h). So that others need not wait for it, a few are there before
// anybody asks; giving one costs a call, so a member whose tasks are short spends little time on
// that.
//
// A member that got a task runs it as a child of its implicit task, in a group of its own that
// stands for the task's: when the body has ended, and when nothing in this group is unfinished, the
// owner is told. It hears of that ("news") when it waits for tasks. Until then the task counts as
// unfinished where it was made.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <cstring>
#include <new>

#include "distant_call.h"
#include "task_memory.h"

namespace krg::omp::distant {
namespace {

// What it may cost a member to give tasks away: some for each member at the start of a region, then
// a part of its time; as much as it likes where tasks take several times as long.
constexpr unsigned kFreePerMember = 2;
constexpr std::int64_t kPartOfTime = 64, kMostCreditNs = 1'000'000;
constexpr std::uint64_t kManyTimes = 4;
// How long it does not ask after there were enough.
constexpr std::uint64_t kShortestPauseNs = 100'000, kLongestPauseNs = 2'000'000;
constexpr std::size_t kInlineWords = 4;

std::uint64_t word_of(const void* address) {
  return std::uint64_t(reinterpret_cast<std::uintptr_t>(address));
}
template <class T>
T* pointer_to(std::uint64_t word) {
  return reinterpret_cast<T*>(std::uintptr_t(word));
}

std::uint64_t average(std::uint64_t before, std::uint64_t now) {
  return before == 0 ? now : before - before / 4 + now / 4;
}

// Small arguments travel in the call, where nobody has stored their address.
void put_arguments(std::uint64_t* words, const Task& task) {
  std::uint64_t copy[kInlineWords] = {};
  if (task.has_copied || task.block != task.arguments || task.block_bytes > sizeof copy) {
    words[5] = word_of(task.arguments);
    return;
  }
  std::memcpy(copy, task.arguments, task.block_bytes);
  words[3] |= kTeamTaskInline;
  words[5] = copy[0];
  std::copy(copy + 1, copy + kInlineWords, words + 9);
}

void get_arguments(Thread& thread, Task& task, const std::uint64_t* words) {
  if ((words[3] & kTeamTaskInline) == 0) {
    task.arguments = pointer_to<void>(words[5]);
    return;
  }
  const std::uint64_t copy[kInlineWords] = {words[5], words[9], words[10], words[11]};
  task.block_bytes = sizeof copy;
  task.arguments = task.block = thread.blocks.allocate(Side::program, sizeof copy);
  std::memcpy(task.block, copy, sizeof copy);
}

void take_all_news(Thread& thread, const std::uint64_t* words, unsigned first) {
  for (; first < kTeamWords && words[first] != 0; ++first)
    take_news(thread, *pointer_to<Task>(words[first] & ~kTeamTaskBits),
              words[first] & kTeamTaskBits);
}

// Whether krgd has taken it.
bool give(Thread& thread, Task& task, std::uint64_t forced) {
  Call call(TeamOp::give_task, thread.at.team);
  std::uint64_t* words = call.words;
  const TaskGroup* group = task.group;
  words[3] = word_of(&task) | forced;
  if (task.final) words[3] |= kTeamTaskFinal;
  if (task.has_copied) words[3] |= kTeamTaskCopied;
  if (group != nullptr && group->reductions != nullptr) words[3] |= kTeamTaskReduces;
  if (!(task.icvs == thread.at.team->icvs)) words[3] |= kTeamTaskIcvs;
  words[4] = word_of(reinterpret_cast<const void*>(task.function));
  words[6] = word_of(task.parent);
  words[7] = word_of(group);
  words[8] = task.ancestor;
  put_arguments(words, task);
  const bool is_taken = call.make() != 0;
  if (is_taken) {
    const Locked locked(thread.at.tasks->mutex);
    remove_from_lists(*thread.at.tasks, task);
    task.away = true;
  }
  take_all_news(thread, words, 3);
  return is_taken;
}

void run_given(Thread& thread, const std::uint64_t* words) {
  Team& team = *thread.at.team;
  TaskQueue& queue = *thread.at.tasks;
  const std::uint64_t key = words[3] & ~kTeamTaskBits;
  auto& group = *new (thread.blocks.allocate(Side::node, sizeof(TaskGroup))) TaskGroup;
  group.original = pointer_to<TaskGroup>(words[7]);
  group.given = key;
  if ((words[3] & kTeamTaskReduces) != 0) group.reductions = group.original->reductions;
  group.unfinished.store(1, std::memory_order_relaxed);
  queue.unfinished.fetch_add(1, std::memory_order_relaxed);

  Task& task = *make_task(thread);
  task.parent = &member_of(team, thread.at.number).task;
  task.group = &group;
  task.team = &team;
  task.member = thread.at.number;
  task.ancestor = key;
  task.function = pointer_to<std::remove_pointer_t<Function>>(words[4]);
  task.icvs = (words[3] & kTeamTaskIcvs) != 0 ? pointer_to<Task>(key)->icvs : team.icvs;
  task.final = (words[3] & kTeamTaskFinal) != 0;
  task.has_copied = (words[3] & kTeamTaskCopied) != 0;
  get_arguments(thread, task, words);
  const bool has_run = run_body(thread, task);
  free_arguments(thread, task);

  std::uint64_t parts = kTeamBodyOver | (has_run ? 0 : kTeamFulfilled);
  if (group.unfinished.fetch_sub(1, std::memory_order_relaxed) == 1) parts |= kTeamAllOver;
  queue.unfinished.fetch_sub(1, std::memory_order_relaxed);
  release(thread, &task);
  end_given(thread, group, parts);
}

// One that it gave away and gets back.
void run_again(Thread& thread, Task& task) {
  task.away = false;
  run_queued(thread, task);
}

}  // namespace

void begin_tasks(Thread& thread, Team& team) {
  thread.at.tasks->thread = &thread;
  thread.giving = {.next_ns = 0,
                   .pause_ns = kShortestPauseNs,
                   .seen_ns = now_ns(),
                   .left_free = kFreePerMember * team.size,
                   .credit_ns = 0,
                   .cost_ns = thread.giving.cost_ns};
  if (team.group == nullptr) return;
  TaskGroup& group = *new (&member_of(team, thread.at.number).group) TaskGroup;
  group.original = team.group;
  group.reductions = team.group->reductions;
  thread.at.task->group = &group;
}

void finish_tasks(Thread& thread) {
  TaskQueue& queue = *thread.at.tasks;
  const auto over = [&] { return queue.unfinished.load(std::memory_order_relaxed) == 0; };
  while (!over()) {
    run_own_tasks(thread);
    if (!over()) wait_for_task(thread, kTeamAnyTask, nullptr);
  }
}

bool run_if_task(Thread& thread, long result, const std::uint64_t* words) {
  if (result == kTeamTask)
    run_given(thread, words);
  else if (result == kTeamOwnTask)
    run_again(thread, *pointer_to<Task>(words[3] & ~kTeamTaskBits));
  else
    return false;
  return true;
}

std::uint64_t give_tasks(Thread& thread) {
  Giving& giving = thread.giving;
  const TaskList& queued = thread.at.tasks->queued;
  std::uint64_t now = now_ns();
  if (now < giving.next_ns || queued.size() == 0) return now;
  giving.credit_ns =
      std::min(giving.credit_ns + std::int64_t(now - giving.seen_ns) / kPartOfTime, kMostCreditNs);
  const bool are_long = giving.task_ns > kManyTimes * giving.cost_ns;
  while (queued.size() != 0) {
    const bool is_taken = give(thread, *queued.first(), 0);
    const std::uint64_t cost = now_ns() - now;
    now += cost;
    giving.cost_ns = average(giving.cost_ns, cost);
    if (giving.left_free > 0)
      --giving.left_free;
    else
      giving.credit_ns = std::max(giving.credit_ns - std::int64_t(cost), -kMostCreditNs);
    if (!is_taken) {
      giving.next_ns = now + giving.pause_ns;
      giving.pause_ns = std::min(2 * giving.pause_ns, kLongestPauseNs);
      break;
    }
    giving.pause_ns = kShortestPauseNs;
    if (giving.left_free == 0 && giving.credit_ns < 0 && !are_long) {
      giving.next_ns = now + std::uint64_t(-giving.credit_ns * kPartOfTime);
      break;
    }
  }
  giving.seen_ns = now;
  return now;
}

void note_task(Thread& thread, std::uint64_t began_ns) {
  thread.giving.task_ns = average(thread.giving.task_ns, now_ns() - began_ns);
}

void wait_for_task(Thread& thread, std::uint64_t what, const void* of) {
  TaskQueue& queue = *thread.at.tasks;
  Call call(TeamOp::wait_for_task, thread.at.team);
  call.words[3] = what;
  call.words[4] = word_of(of);
  call.words[5] = queue.queued.empty() ? 0 : 1;
  const long result = call.make();
  if (run_if_task(thread, result, call.words)) return;
  if (call.words[3] != 0)
    take_all_news(thread, call.words, 3);
  else if (Task* task = queue.queued.first())
    give(thread, *task, kTeamTaskForced);
}

void end_given(Thread& thread, TaskGroup& group, std::uint64_t parts) {
  Call call(TeamOp::task_over, thread.at.team);
  call.words[3] = group.given | parts;
  if ((parts & kTeamAllOver) != 0) thread.blocks.free(Side::node, &group, sizeof group);
  call.make();
}

void fulfill(const Task& task) {
  Call call(TeamOp::fulfill, task.team);
  call.words[3] = word_of(&task);
  call.words[4] = task.member;
  call.make();
}

}  // namespace krg::omp::distant
