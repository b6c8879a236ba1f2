// SPDX-License-Identifier: GPL-2.0-or-later
#include "task.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "distant.h"
#include "task_memory.h"

namespace krg::omp {
namespace {

// More unfinished tasks per member than this, and new ones run at once: queues stay short.
constexpr unsigned kMostPerMember = 64;

TaskQueue& queue_of(const Task& task) {
  return task.team->distant ? member_of(*task.team, task.member).tasks : task.team->tasks;
}

void add_to_lists(TaskQueue& queue, Task& task) {
  queue.queued.insert(task.in_team);
  task.parent->queued_children.insert(task.in_parent);
  if (task.group != nullptr) task.group->queued.insert(task.in_group);
}

// Whoever could run a task that has just been queued. REQUIRES: since then the mutex was freed, or
// a fence: an atomic operation of x86-64, so that whoever is about to sleep is seen, or sees the
// task.
void wake_for(Team& team, const Task& parent, TaskGroup* group) {
  if (team.distant) return;  // those who wait ask krgd
  if (!team.idle.wake_one()) team.master_idle.wake_one();
  const_cast<Task&>(parent).waiter.wake_all();
  if (group != nullptr) group->waiter.wake_all();
}

// Under the mutex, by which all change these counts; who waits for 0 looks without it, so only that
// is an atomic operation.
void count_up(std::atomic<unsigned>& count) {
  count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}
bool count_down(std::atomic<unsigned>& count) {
  const unsigned left = count.load(std::memory_order_relaxed) - 1;
  count.store(left, left != 0 ? std::memory_order_release : std::memory_order_seq_cst);
  return left == 0;
}

// Under the mutex: `task` begins to count as one that others wait for.
void count_in(TaskQueue& queue, Task& task) {
  count_up(task.parent->unfinished_children);
  if (task.group != nullptr) count_up(task.group->unfinished);
  count_up(queue.unfinished);
}

// Under the mutex: its successors and its parent need not wait for it any more.
void leave_family(Thread& thread, TaskQueue& queue, Task& task) {
  Team& team = *task.team;
  if (task.records != nullptr) remove_dependences(thread, task);
  while (Successor* successor = task.successors) {
    task.successors = successor->next;
    Task& waiting = *successor->task;
    thread.blocks.free(Side::node, successor, sizeof *successor);
    if (!count_down(waiting.predecessors)) continue;
    if (waiting.is_wait) {
      waiting.parent->waiter.wake_all();
    } else {
      add_to_lists(queue, waiting);
      std::atomic_thread_fence(std::memory_order_seq_cst);
      wake_for(team, *waiting.parent, waiting.group);
    }
  }
  if (count_down(task.parent->unfinished_children)) task.parent->waiter.wake_all();
}

// Under the mutex: nor its group and the team.
void leave_group(Thread& thread, TaskQueue& queue, Task& task) {
  if (task.group != nullptr && count_down(task.group->unfinished)) {
    if (task.group->given != 0)
      distant::end_given(thread, *task.group, kTeamAllOver);
    else
      task.group->waiter.wake_all();
  }
  if (count_down(queue.unfinished)) release_barriers(*task.team);
}

// Under the mutex. Afterwards the parent and the group may be gone as soon as the mutex is free.
void count_out(Thread& thread, TaskQueue& queue, Task& task) {
  leave_family(thread, queue, task);
  leave_group(thread, queue, task);
}

// Under the mutex: the end of one that was queued, or given away.
void end_body(Thread& thread, TaskQueue& queue, Task& task) {
  if (task.detachable && !task.fulfilled) {
    task.body_done = true;
    return;
  }
  leave_family(thread, queue, task);
  task.over = true;
  if (task.away) return;
  leave_group(thread, queue, task);
  release(thread, &task);
}

// Runs the tasks that `pick` chooses under the mutex, until it chooses none.
template <class Pick>
void work_off(Thread& thread, Team& team, const Pick& pick) {
  TaskQueue& queue = *thread.at.tasks;
  queue.mutex.lock();
  while (Task* task = pick()) {
    remove_from_lists(queue, *task);
    queue.mutex.unlock();
    std::uint64_t began_ns = 0;
    if (team.distant) began_ns = distant::give_tasks(thread);
    const bool discarded = !run_body(thread, *task);
    if (team.distant) distant::note_task(thread, began_ns);
    free_arguments(thread, *task);
    queue.mutex.lock();
    if (discarded) task->fulfilled = true;
    end_body(thread, queue, *task);
  }
  queue.mutex.unlock();
}

// Until `over`, meanwhile with tasks from `list`, all of which may be run here. `what`, `of`: the
// same for krgd.
template <class Over>
void work_until(Thread& thread, const Over& over, const TaskList& list, EventCount& waiter,
                std::uint64_t what, const void* of) {
  Team& team = *thread.at.team;
  thread.short_tasks.pause();
  while (!over()) {
    work_off(thread, team, [&] { return over() ? nullptr : list.first(); });
    if (!team.distant)
      waiter.wait([&] { return over() || !list.empty(); }, &team.asleep);
    else if (!over())
      distant::wait_for_task(thread, what, of);
  }
}

// The end of a task that ran at once.
void end_now(Thread& thread, Task& task) {
  if (task.detachable) {
    TaskQueue& queue = queue_of(task);
    const Locked locked(queue.mutex);
    if (!task.fulfilled) {
      task.body_done = true;
      return;
    }
    count_out(thread, queue, task);
  }
  release(thread, &task);
}

// The end of one by run_simply that its children, or what they depend on, refer to: it is none of
// the spare ones yet, and refers to its parent from now on.
[[gnu::noinline]] void outlive(Thread& thread, Task& task) {
  --thread.spare_task_count;
  if (!task.parent->implicit) task.parent->references.fetch_add(1, std::memory_order_relaxed);
  release(thread, &task);
}

// At once, with nothing to wait for and nothing to be told of, in a team on one node. As short as
// can be: its parent, which waits, is not counted, nor that it is out of the spare ones.
inline void run_simply(Thread& thread, Function function, void* data, bool final) {
  Task& parent = *thread.at.task;
  Task* task = thread.spare_tasks;
  if (__builtin_expect(task == nullptr, 0)) task = add_spare_task(thread);
  thread.spare_tasks = task->parent;
  task->parent = &parent;
  task->group = parent.group;
  task->team = thread.at.team;
  inherit(task->icvs, parent.icvs);
  task->final = final || parent.final;
  thread.at.task = task;
  function(data);
  thread.at.task = &parent;
  if (__builtin_expect(
          task->references.load(std::memory_order_acquire) != 1 || task->depends != nullptr, 0))
    return outlive(thread, *task);
  task->parent = thread.spare_tasks;
  thread.spare_tasks = task;
}

void give_event(Task& task, void* data, void* detach) {
  task.detachable = true;
  Task* event = &task;
  std::memcpy(detach, &event, sizeof event);
  if (data != nullptr) std::memcpy(data, &event, sizeof event);
}

}  // namespace

void TaskList::insert(TaskLink& link) {
  TaskLink* before = last_;
  while (before != nullptr && before->task->priority < link.task->priority) before = before->before;
  link.before = before;
  link.after = before != nullptr ? before->after : first_;
  (before != nullptr ? before->after : first_) = &link;
  (link.after != nullptr ? link.after->before : last_) = &link;
  size_.store(size_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void TaskList::remove(TaskLink& link) {
  (link.before != nullptr ? link.before->after : first_) = link.after;
  (link.after != nullptr ? link.after->before : last_) = link.before;
  size_.store(size_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
}

void remove_from_lists(TaskQueue& queue, Task& task) {
  queue.queued.remove(task.in_team);
  task.parent->queued_children.remove(task.in_parent);
  if (task.group != nullptr) task.group->queued.remove(task.in_group);
}

bool run_body(Thread& thread, Task& task) {
  if (!task.has_copied && (task.team->cancelled.load(std::memory_order_relaxed) ||
                           (task.group != nullptr && task.group->is_cancelled())))
    return false;
  Task* suspended = thread.at.task;
  thread.at.task = &task;
  task.function(task.arguments);
  thread.at.task = suspended;
  return true;
}

void run_queued(Thread& thread, Task& task) {
  const bool discarded = !run_body(thread, task);
  free_arguments(thread, task);
  TaskQueue& queue = queue_of(task);
  const Locked locked(queue.mutex);
  if (discarded) task.fulfilled = true;
  end_body(thread, queue, task);
}

void take_news(Thread& thread, Task& task, std::uint64_t news) {
  TaskQueue& queue = queue_of(task);
  const Locked locked(queue.mutex);
  const bool waited_for_event = task.body_done;
  if ((news & kTeamFulfilled) != 0) task.fulfilled = true;
  if ((news & kTeamBodyOver) != 0) free_arguments(thread, task);
  const bool all_over = (news & kTeamAllOver) != 0;
  if (all_over) task.away = false;
  if ((news & kTeamBodyOver) != 0 || (waited_for_event && task.fulfilled && !task.over)) {
    end_body(thread, queue, task);
  } else if (all_over && task.over) {
    leave_group(thread, queue, task);
    release(thread, &task);
  }
}

void free_spare_tasks(Thread& thread) {
  while (Task* task = thread.spare_tasks) {
    thread.spare_tasks = task->parent;
    thread.blocks.free(Side::node, task, sizeof(Task));
  }
  thread.spare_task_count = 0;
}

bool is_cancelled(const Thread& thread) {
  if (!settings.cancellation) return false;
  const TaskGroup* group = thread.at.task->group;
  return thread.at.team->cancelled.load(std::memory_order_relaxed) ||
         (group != nullptr && group->is_cancelled());
}

bool runs_at_once(const Thread& thread, bool if_clause) {
  return !if_clause || thread.at.team->serial || thread.at.task->final;
}

void begin_implicit_task(Thread& thread, Task& task, Team& team) {
  if (task.depends != nullptr) drop_depend_table(thread, task);
  task.parent = team.outer_task;
  task.group = team.group;
  task.team = &team;
  task.icvs = team.icvs;
  task.implicit = true;
}

Task& new_task(Thread& thread, bool final) {
  Task& parent = *thread.at.task;
  Task* task = make_task(thread);
  task->parent = &parent;
  task->group = parent.group;
  task->team = thread.at.team;
  task->member = thread.at.number;
  task->ancestor = parent.ancestor;
  inherit(task->icvs, parent.icvs);
  task->final = final || parent.final;
  if (!parent.implicit) parent.references.fetch_add(1, std::memory_order_relaxed);
  return *task;
}

void run_now(Thread& thread, Task& task) {
  thread.at.task = &task;
  task.function(task.arguments);
  thread.at.task = task.parent;
  free_arguments(thread, task);
  end_now(thread, task);
}

void queue_tasks(Thread& thread, Task** tasks, unsigned count) {
  Team& team = *thread.at.team;
  TaskQueue& queue = *thread.at.tasks;
  {
    const Locked locked(queue.mutex);
    for (unsigned i = 0; i < count; ++i) {
      count_in(queue, *tasks[i]);
      add_to_lists(queue, *tasks[i]);
    }
  }
  if (team.distant) {
    distant::give_tasks(thread);
    return;
  }
  for (unsigned i = 0; i < count; ++i) wake_for(team, *thread.at.task, thread.at.task->group);
}

namespace {

// Also while others are at the queue and have something to do: a task that is shorter than the way
// through the mutex is over before it would be queued.
bool has_enough(const Team& team, const TaskQueue& queue) {
  const unsigned unfinished = queue.unfinished.load(std::memory_order_relaxed);
  return unfinished > kMostPerMember * team.size ||
         (unfinished > team.size && queue.mutex.is_held());
}

[[gnu::noinline]] void create_any_task(Function function, void* data, CopyFunction copy, long bytes,
                                       long alignment, bool if_clause, unsigned flags,
                                       void** depend, int priority, void* detach) {
  Thread& thread = this_thread();
  Team& team = *thread.at.team;
  const bool dependent = (flags & kTaskDepend) != 0;
  const bool detachable = (flags & kTaskDetach) != 0;
  TaskQueue& queue = *thread.at.tasks;
  const bool at_once =
      runs_at_once(thread, if_clause) ||
      (!dependent && !detachable &&
       (has_enough(team, queue) || (!team.distant && thread.short_tasks.has(function))));
  if (at_once && dependent) wait_for_dependences(depend);

  Task& task = new_task(thread, (flags & kTaskFinal) != 0);
  task.function = function;
  if ((flags & kTaskPriority) != 0)
    task.priority = std::clamp(priority, 0, settings.max_task_priority);
  if (detachable) give_event(task, data, detach);
  if (!at_once || copy != nullptr) {
    copy_arguments(thread, task, data, copy, std::size_t(bytes), std::size_t(alignment));
  } else {
    task.arguments = data;
  }
  if (at_once && !detachable) {
    const std::uint64_t began_ns = team.distant ? distant::give_tasks(thread) : 0;
    const std::uint64_t began = thread.short_tasks.begin();
    run_now(thread, task);
    thread.short_tasks.ran(function, began);
    if (team.distant) distant::note_task(thread, began_ns);
    return;
  }
  {
    const Locked locked(queue.mutex);
    count_in(queue, task);
    if (dependent && add_dependences(thread, task, depend, true)) return;
    if (!at_once) add_to_lists(queue, task);
  }
  if (at_once) {
    run_now(thread, task);
  } else if (team.distant) {
    distant::give_tasks(thread);
  } else if (team.size > 1) {
    // `task` may be gone by now.
    wake_for(team, *thread.at.task, thread.at.task->group);
  }
}

}  // namespace

void create_task(Function function, void* data, CopyFunction copy, long bytes, long alignment,
                 bool if_clause, unsigned flags, void** depend, int priority, void* detach) {
  Thread& thread = this_thread();
  if (__builtin_expect(settings.cancellation, 0) && is_cancelled(thread)) return;
  const Team& team = *thread.at.team;
  const bool is_simple =
      copy == nullptr && (flags & (kTaskDepend | kTaskDetach)) == 0 && !team.distant;
  if (is_simple &&
      (runs_at_once(thread, if_clause) || (team.size == 1 && has_enough(team, team.tasks))))
    return run_simply(thread, function, data, (flags & kTaskFinal) != 0);
  const bool is_waited_for = team.asleep.load(std::memory_order_relaxed) != 0;
  if (is_waited_for) thread.short_tasks.end_batch();
  const bool is_short = is_simple && thread.short_tasks.has(function);
  if (is_short && !is_waited_for && thread.short_tasks.joins_batch(function))
    return run_simply(thread, function, data, (flags & kTaskFinal) != 0);
  if (is_short || (is_simple && has_enough(team, team.tasks))) {
    const std::uint64_t began = thread.short_tasks.begin();
    run_simply(thread, function, data, (flags & kTaskFinal) != 0);
    thread.short_tasks.ran(function, began);
    return;
  }
  create_any_task(function, data, copy, bytes, alignment, if_clause, flags, depend, priority,
                  detach);
}

void wait_for_children() {
  Thread& thread = this_thread();
  Task& task = *thread.at.task;
  const auto over = [&] { return task.unfinished_children.load(std::memory_order_seq_cst) == 0; };
  work_until(thread, over, task.queued_children, task.waiter, kTeamChildren, &task);
}

void wait_for_dependences(void** depend) {
  Thread& thread = this_thread();
  Task& task = *thread.at.task;
  if (task.depends == nullptr) return;
  TaskQueue& queue = *thread.at.tasks;
  Task& wait = new_task(thread, false);
  wait.is_wait = true;
  const auto over = [&] { return wait.predecessors.load(std::memory_order_seq_cst) == 0; };
  {
    const Locked locked(queue.mutex);
    add_dependences(thread, wait, depend, false);
  }
  work_until(thread, over, task.queued_children, task.waiter, kTeamChildren, &task);
  { const Locked whoever_made_it_true_has_left(queue.mutex); }
  release(thread, &wait);
}

void start_task_group() {
  Thread& thread = this_thread();
  Task& task = *thread.at.task;
  auto* group = new (thread.blocks.allocate(Side::node, sizeof(TaskGroup))) TaskGroup;
  group->outer = task.group;
  if (task.group != nullptr) group->reductions = task.group->reductions;
  task.group = group;
}

void end_task_group() {
  Thread& thread = this_thread();
  Task& task = *thread.at.task;
  TaskGroup* group = task.group;
  if (group == nullptr) return;
  const auto over = [&] { return group->unfinished.load(std::memory_order_seq_cst) == 0; };
  work_until(thread, over, group->queued, group->waiter, kTeamGroup, group);
  { const Locked whoever_finished_the_last_has_left(thread.at.tasks->mutex); }
  task.group = group->outer;
  thread.blocks.free(Side::node, group, sizeof(TaskGroup));
}

void fulfill(Task* task) {
  Thread& thread = this_thread();
  TaskQueue& queue = queue_of(*task);
  if (task->team->distant && queue.thread != &thread) return distant::fulfill(*task);
  const Locked locked(queue.mutex);
  task->fulfilled = true;
  if (task->body_done) end_body(thread, queue, *task);
}

void run_any_tasks(Thread& thread, Team& team, std::uint32_t end_generation) {
  work_off(thread, team, [&] {
    const bool same = team.end.generation.load(std::memory_order_relaxed) == end_generation;
    return same ? team.tasks.queued.first() : nullptr;
  });
}

void run_own_tasks(Thread& thread) {
  work_off(thread, *thread.at.team, [&] { return thread.at.tasks->queued.first(); });
}

}  // namespace krg::omp
