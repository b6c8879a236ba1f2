// Tasks and their arguments as blocks of memory. A part of the paths that each task takes, so
// inline. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <algorithm>
#include <cstring>
#include <new>

#include "team.h"

namespace krg::omp {

inline constexpr unsigned kMostSpare = 64;

// A task that has ended and that nothing refers to any more: its lists and counts are empty again.
inline void put_away(Thread& thread, Task* task) {
  if (thread.spare_task_count >= kMostSpare) {
    thread.blocks.free(Side::node, task, sizeof(Task));
    return;
  }
  task->references.store(1, std::memory_order_relaxed);
  task->priority = 0;
  task->has_copied = task->detachable = task->body_done = task->fulfilled = task->is_wait = false;
  task->away = task->over = false;
  task->parent = thread.spare_tasks;
  thread.spare_tasks = task;
  ++thread.spare_task_count;
}

// The only spare one then.
[[gnu::noinline]] inline Task* add_spare_task(Thread& thread) {
  Task* task = new (thread.blocks.allocate(Side::node, sizeof(Task))) Task;
  task->in_team.task = task->in_parent.task = task->in_group.task = task;
  thread.spare_tasks = task;
  ++thread.spare_task_count;
  return task;
}

inline Task* make_task(Thread& thread) {
  Task* task = thread.spare_tasks;
  if (task == nullptr) task = add_spare_task(thread);
  thread.spare_tasks = task->parent;
  --thread.spare_task_count;
  return task;
}

inline void inherit(Icvs& icvs, const Icvs& from) {
  std::memcpy(&icvs, &from, sizeof icvs);  // whole words, unlike an assignment of the members
}

inline void release(Thread& thread, Task* task) {
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

inline void free_arguments(Thread& thread, Task& task) {
  if (task.block == nullptr) return;
  thread.blocks.free(Side::program, task.block, task.block_bytes);
  task.block = nullptr;
}

inline void copy_arguments(Thread& thread, Task& task, void* data, CopyFunction copy,
                           std::size_t bytes, std::size_t alignment) {
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

}  // namespace krg::omp
