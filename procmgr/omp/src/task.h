// Explicit tasks of a team. One lock per queue (TaskQueue::mutex) orders all changes; a task that
// may run stands in three lists: the team's (barriers run any task), its parent's (taskwait runs
// children), its group's (end of a taskgroup runs the group's). So a thread that waits inside a
// task only begins tasks that descend from it, as OpenMP's scheduling constraint wants. Lists are
// ordered by priority, then by age. A team has one queue; in one on several nodes each member has
// its own, which nobody else touches, and gives tasks of it to others by krgd (distant_tasks.cpp).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <atomic>
#include <cstdint>

#include "settings.h"
#include "waiting.h"

namespace krg::omp {

struct Task;
struct Team;
struct Thread;
struct DependTable;
struct DependRecord;

struct TaskQueue;

// A task's place in one list.
struct TaskLink {
  Task* task = nullptr;
  TaskLink* before = nullptr;
  TaskLink* after = nullptr;
};

// Under the queue's mutex, but for empty().
class TaskList {
 public:
  [[nodiscard]] Task* first() const { return first_ != nullptr ? first_->task : nullptr; }
  void insert(TaskLink& link);
  void remove(TaskLink& link);
  [[nodiscard]] bool empty() const { return size_.load(std::memory_order_seq_cst) == 0; }
  [[nodiscard]] unsigned size() const { return size_.load(std::memory_order_relaxed); }

 private:
  TaskLink* first_ = nullptr;
  TaskLink* last_ = nullptr;
  std::atomic<unsigned> size_{0};
};

struct TaskGroup {
  TaskGroup* outer = nullptr;
  TaskList queued;
  std::atomic<unsigned> unfinished{0};
  EventCount waiter;
  ReductionArray reductions = nullptr;
  std::atomic<bool> cancelled{false};
  bool of_work_share = false;
  // Stands for another member's group: of a task that this member was given, or of all implicit
  // tasks. What is given to is told when `unfinished` gets 0.
  TaskGroup* original = nullptr;
  std::uint64_t given = 0;

  [[nodiscard]] bool is_cancelled() const {
    return cancelled.load(std::memory_order_relaxed) ||
           (of_work_share && outer != nullptr &&
            outer->cancelled.load(std::memory_order_relaxed)) ||
           (original != nullptr && settings.cancellation && original->is_cancelled());
  }
  void cancel() {
    for (TaskGroup* group = this; group != nullptr; group = group->original)
      group->cancelled.store(true, std::memory_order_relaxed);
  }
};

// Who waits for a task to finish.
struct Successor {
  Task* task = nullptr;
  Successor* next = nullptr;
};

struct Task {
  Task* parent = nullptr;
  TaskGroup* group = nullptr;
  Team* team = nullptr;
  Function function = nullptr;
  void* arguments = nullptr;
  void* block = nullptr;  // what the arguments lie in
  std::size_t block_bytes = 0;
  Icvs icvs;
  int priority = 0;
  bool implicit = false;
  bool final = false;
  bool has_copied = false;  // its arguments were made by copy constructors, so it must run
  bool detachable = false;
  bool body_done = false;  // detachable: only its event is awaited
  bool fulfilled = false;
  bool is_wait = false;  // not a task, but its parent that waits until dependences are met
  bool away = false;     // given to another member: not all that descends from it is over
  bool over = false;     // its siblings and parent know that it has ended
  std::atomic<unsigned> references{1};  // its own and its children's; not of implicit tasks
  std::atomic<unsigned> unfinished_children{0};
  EventCount waiter;  // its thread, which waits in it for children or dependences

  // Under the queue's mutex.
  TaskLink in_team, in_parent, in_group;
  TaskList queued_children;
  std::atomic<unsigned> predecessors{0};
  std::uint32_t member = 0;  // whose queue it is counted in, in a distant team
  Successor* successors = nullptr;
  DependTable* depends = nullptr;   // of its children
  DependRecord* records = nullptr;  // in its parent's table
  std::uint64_t ancestor = 0;       // distant: the given task that it descends from
};
static_assert(sizeof(Task) <= 256, "a size of blocks");

struct TaskQueue {
  alignas(64) Mutex mutex;
  TaskList queued;
  std::atomic<unsigned> unfinished{0};  // of all tasks, queued or not
  Thread* thread = nullptr;             // whose it is, in a distant team
};

// The ABI's functions, in terms of the calling thread.
void create_task(Function function, void* data, CopyFunction copy, long bytes, long alignment,
                 bool if_clause, unsigned flags, void** depend, int priority, void* detach);
void wait_for_children();
void wait_for_dependences(void** depend);
void start_task_group();
void end_task_group();
void fulfill(Task* task);

// Runs tasks of the team's queue until there is none; REQUIRES: the thread is at a barrier of the
// team. `end_generation`: the region may have ended meanwhile, and another one begun, when the
// team's end has another generation.
void run_any_tasks(Thread& thread, Team& team, std::uint32_t end_generation);

// In a distant team: those of the calling member.
void run_own_tasks(Thread& thread);

// A member's implicit task at the start of a region.
void begin_implicit_task(Thread& thread, Task& task, Team& team);

// For taskloop: a task of the calling thread's task, and its start (task_memory.h has its
// arguments).
Task& new_task(Thread& thread, bool final);
void run_now(Thread& thread, Task& task);
void queue_tasks(Thread& thread, Task** tasks, unsigned count);
void free_spare_tasks(Thread& thread);
bool is_cancelled(const Thread& thread);
bool runs_at_once(const Thread& thread, bool if_clause);

// A task of the calling thread's member that is not in the lists, from its start to its end.
void run_queued(Thread& thread, Task& task);
// Whether it ran; else it was discarded.
bool run_body(Thread& thread, Task& task);
void remove_from_lists(TaskQueue& queue, Task& task);
// What has become of a task that was given away (team_call.h).
void take_news(Thread& thread, Task& task, std::uint64_t news);

// depend.cpp; under the queue's mutex. True when `task` has to wait for others. `remember`: later
// tasks wait for it.
bool add_dependences(Thread& thread, Task& task, void** depend, bool remember);
void remove_dependences(Thread& thread, Task& task);
void drop_depend_table(Thread& thread, Task& parent);

// reductions.cpp
void register_reductions(TaskGroup& group, ReductionArray data, const std::uintptr_t* original,
                         unsigned threads);
void free_reductions(ReductionArray data);

}  // namespace krg::omp
