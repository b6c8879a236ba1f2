// SPDX-License-Identifier: GPL-2.0-or-later
#include "task.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "team.h"

namespace krg::omp {
namespace {

// More unfinished tasks per member than this, and new ones run at once: queues stay short.
constexpr unsigned kMostPerMember = 64;

void remove_from_lists(Team& team, Task& task) {
  team.tasks.queued.remove(task.in_team);
  task.parent->queued_children.remove(task.in_parent);
  if (task.group != nullptr) task.group->queued.remove(task.in_group);
}

void add_to_lists(Team& team, Task& task) {
  team.tasks.queued.insert(task.in_team);
  task.parent->queued_children.insert(task.in_parent);
  if (task.group != nullptr) task.group->queued.insert(task.in_group);
}

// Whoever could run a task that has just been queued.
void wake_for(Team& team, const Task& parent, TaskGroup* group) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!team.idle.wake_one()) team.master_idle.wake_one();
  const_cast<Task&>(parent).waiter.wake_all();
  if (group != nullptr) group->waiter.wake_all();
}

constexpr unsigned kMostSpare = 64;

// A task that has ended and that nothing refers to any more: its lists and counts are empty again.
void put_away(Thread& thread, Task* task) {
  if (thread.spare_task_count == kMostSpare) {
    thread.blocks.free(Side::node, task, sizeof(Task));
    return;
  }
  task->priority = 0;
  task->has_copied = task->detachable = task->body_done = task->fulfilled = task->is_wait = false;
  task->parent = thread.spare_tasks;
  thread.spare_tasks = task;
  ++thread.spare_task_count;
}

Task* make_task(Thread& thread) {
  Task* task = thread.spare_tasks;
  if (task != nullptr) {
    thread.spare_tasks = task->parent;
    --thread.spare_task_count;
    task->references.store(1, std::memory_order_relaxed);
    return task;
  }
  task = new (thread.blocks.allocate(Side::node, sizeof(Task))) Task;
  task->in_team.task = task->in_parent.task = task->in_group.task = task;
  return task;
}

void release(Thread& thread, Task* task) {
  while (task != nullptr && !task->implicit) {
    // The only one that refers to it needs no atomic operation.
    if (task->references.load(std::memory_order_acquire) != 1 &&
        task->references.fetch_sub(1, std::memory_order_acq_rel) != 1)
      return;
    Task* parent = task->parent;
    if (task->depends != nullptr) drop_depend_table(thread, *task);
    put_away(thread, task);
    task = parent;
  }
}

void free_arguments(Thread& thread, Task& task) {
  if (task.block == nullptr) return;
  thread.blocks.free(Side::program, task.block, task.block_bytes);
  task.block = nullptr;
}

// Under the mutex: `task` begins to count as one that others wait for.
void count_in(Team& team, Task& task) {
  task.parent->unfinished_children.fetch_add(1, std::memory_order_relaxed);
  if (task.group != nullptr) task.group->unfinished.fetch_add(1, std::memory_order_relaxed);
  team.tasks.unfinished.fetch_add(1, std::memory_order_relaxed);
}

// Under the mutex. Afterwards the parent and the group may be gone as soon as the mutex is free.
void count_out(Thread& thread, Team& team, Task& task) {
  if (task.records != nullptr) remove_dependences(thread, task);
  while (Successor* successor = task.successors) {
    task.successors = successor->next;
    Task& waiting = *successor->task;
    thread.blocks.free(Side::node, successor, sizeof *successor);
    if (waiting.predecessors.fetch_sub(1, std::memory_order_seq_cst) != 1) continue;
    if (waiting.is_wait) {
      waiting.parent->waiter.wake_all();
    } else {
      add_to_lists(team, waiting);
      wake_for(team, *waiting.parent, waiting.group);
    }
  }
  if (task.parent->unfinished_children.fetch_sub(1, std::memory_order_seq_cst) == 1)
    task.parent->waiter.wake_all();
  if (task.group != nullptr && task.group->unfinished.fetch_sub(1, std::memory_order_seq_cst) == 1)
    task.group->waiter.wake_all();
  if (team.tasks.unfinished.fetch_sub(1, std::memory_order_seq_cst) == 1) release_barriers(team);
}

// Runs the tasks that `pick` chooses under the mutex, until it chooses none.
template <class Pick>
void work_off(Thread& thread, Team& team, const Pick& pick) {
  Mutex& mutex = team.tasks.mutex;
  mutex.lock();
  while (Task* task = pick()) {
    remove_from_lists(team, *task);
    mutex.unlock();
    const bool discarded =
        !task->has_copied && (team.cancelled.load(std::memory_order_relaxed) ||
                              (task->group != nullptr && task->group->is_cancelled()));
    if (!discarded) {
      Task* suspended = thread.at.task;
      thread.at.task = task;
      task->function(task->arguments);
      thread.at.task = suspended;
    }
    free_arguments(thread, *task);
    mutex.lock();
    if (task->detachable && !discarded && !task->fulfilled) {
      task->body_done = true;
      continue;
    }
    count_out(thread, team, *task);
    release(thread, task);
  }
  mutex.unlock();
}

// The end of a task that ran at once.
void end_now(Thread& thread, Task& task) {
  if (task.detachable) {
    const Locked locked(task.team->tasks.mutex);
    if (!task.fulfilled) {
      task.body_done = true;
      return;
    }
    count_out(thread, *task.team, task);
  }
  release(thread, &task);
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

bool is_cancelled(const Thread& thread) {
  const TaskGroup* group = thread.at.task->group;
  return thread.at.team->cancelled.load(std::memory_order_relaxed) ||
         (group != nullptr && group->is_cancelled());
}

bool runs_at_once(const Thread& thread, bool if_clause) {
  return !if_clause || thread.at.team->serial || thread.at.team->distant || thread.at.task->final;
}

void free_spare_tasks(Thread& thread) {
  while (Task* task = thread.spare_tasks) {
    thread.spare_tasks = task->parent;
    thread.blocks.free(Side::node, task, sizeof(Task));
  }
  thread.spare_task_count = 0;
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
  task->icvs = parent.icvs;
  task->final = final || parent.final;
  if (!parent.implicit) parent.references.fetch_add(1, std::memory_order_relaxed);
  return *task;
}

void copy_arguments(Thread& thread, Task& task, void* data, CopyFunction copy, std::size_t bytes,
                    std::size_t alignment) {
  task.block_bytes = std::max<std::size_t>(bytes, 1) + (alignment > 64 ? alignment : 0);
  task.block = thread.blocks.allocate(Side::program, task.block_bytes);
  auto address = reinterpret_cast<std::uintptr_t>(task.block);
  if (alignment > 64) address = (address + alignment - 1) & ~(std::uintptr_t(alignment) - 1);
  task.arguments = reinterpret_cast<void*>(address);
  if (copy != nullptr) {
    copy(task.arguments, data);
    task.has_copied = true;
  } else {
    std::memcpy(task.arguments, data, bytes);
  }
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
  {
    const Locked locked(team.tasks.mutex);
    for (unsigned i = 0; i < count; ++i) {
      count_in(team, *tasks[i]);
      add_to_lists(team, *tasks[i]);
    }
  }
  for (unsigned i = 0; i < count; ++i) wake_for(team, *thread.at.task, thread.at.task->group);
}

void create_task(Function function, void* data, CopyFunction copy, long bytes, long alignment,
                 bool if_clause, unsigned flags, void** depend, int priority, void* detach) {
  Thread& thread = this_thread();
  if (is_cancelled(thread)) return;
  Team& team = *thread.at.team;
  const bool dependent = (flags & kTaskDepend) != 0;
  const bool detachable = (flags & kTaskDetach) != 0;
  const bool enough =
      team.tasks.unfinished.load(std::memory_order_relaxed) > kMostPerMember * team.size;
  const bool at_once = runs_at_once(thread, if_clause) || (enough && !dependent && !detachable);
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
    run_now(thread, task);
    return;
  }
  {
    const Locked locked(team.tasks.mutex);
    count_in(team, task);
    if (dependent && add_dependences(thread, task, depend, true)) return;
    if (!at_once) add_to_lists(team, task);
  }
  if (at_once) {
    run_now(thread, task);
  } else if (team.size > 1) {
    // `task` may be gone by now.
    wake_for(team, *thread.at.task, thread.at.task->group);
  }
}

void wait_for_children() {
  Thread& thread = this_thread();
  Task& task = *thread.at.task;
  const auto over = [&] { return task.unfinished_children.load(std::memory_order_seq_cst) == 0; };
  while (!over()) {
    work_off(thread, *thread.at.team, [&] { return task.queued_children.first(); });
    task.waiter.wait([&] { return over() || !task.queued_children.empty(); });
  }
}

void wait_for_dependences(void** depend) {
  Thread& thread = this_thread();
  Task& task = *thread.at.task;
  if (task.depends == nullptr) return;
  Team& team = *thread.at.team;
  Task& wait = new_task(thread, false);
  wait.is_wait = true;
  const auto over = [&] { return wait.predecessors.load(std::memory_order_seq_cst) == 0; };
  {
    const Locked locked(team.tasks.mutex);
    add_dependences(thread, wait, depend, false);
  }
  while (!over()) {
    work_off(thread, team, [&] { return over() ? nullptr : task.queued_children.first(); });
    task.waiter.wait([&] { return over() || !task.queued_children.empty(); });
  }
  { const Locked whoever_made_it_true_has_left(team.tasks.mutex); }
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
  Team& team = *thread.at.team;
  const auto over = [&] { return group->unfinished.load(std::memory_order_seq_cst) == 0; };
  while (!over()) {
    work_off(thread, team, [&] { return group->queued.first(); });
    group->waiter.wait([&] { return over() || !group->queued.empty(); });
  }
  { const Locked whoever_finished_the_last_has_left(team.tasks.mutex); }
  task.group = group->outer;
  thread.blocks.free(Side::node, group, sizeof(TaskGroup));
}

void fulfill(Task* task) {
  Thread& thread = this_thread();
  Team& team = *task->team;
  {
    const Locked locked(team.tasks.mutex);
    task->fulfilled = true;
    if (!task->body_done) return;
    count_out(thread, team, *task);
  }
  release(thread, task);
}

void run_any_tasks(Thread& thread, Team& team, std::uint32_t end_generation) {
  work_off(thread, team, [&] {
    const bool same = team.end.generation.load(std::memory_order_relaxed) == end_generation;
    return same ? team.tasks.queued.first() : nullptr;
  });
}

}  // namespace krg::omp
