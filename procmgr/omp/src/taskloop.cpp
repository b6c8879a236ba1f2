// taskloop: a loop's iterations divided into tasks. The first two words of a task's arguments are
// its part of the loop; with a reduction the third is the array that describes it.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstring>

#include "loops.h"
#include "task_memory.h"

namespace krg::omp {
namespace {

struct Parts {
  std::uint64_t tasks = 0;
  std::uint64_t each = 0;
  std::uint64_t longer = 0;  // so many of the first ones have one iteration more
};

// `number`: of tasks, or with grainsize the iterations of a task.
Parts divide(std::uint64_t iterations, std::uint64_t number, unsigned flags, unsigned members) {
  if ((flags & kTaskGrainSize) != 0) {
    const std::uint64_t grain = std::max<std::uint64_t>(number, 1);
    if ((flags & kTaskStrict) != 0) {
      const std::uint64_t tasks = (iterations - 1) / grain + 1;
      return {tasks, grain, 0};  // the last one gets what is left
    }
    const std::uint64_t tasks = std::max<std::uint64_t>(iterations / grain, 1);
    return {tasks, iterations / tasks, iterations % tasks};
  }
  const std::uint64_t wanted = number != 0 ? number : members;
  const std::uint64_t tasks = std::min(wanted, iterations);
  if ((flags & kTaskStrict) != 0 && number != 0) {
    const std::uint64_t each = (iterations - 1) / tasks + 1;
    return {(iterations - 1) / each + 1, each, 0};
  }
  return {tasks, iterations / tasks, iterations % tasks};
}

ReductionArray reductions_of(void* data) {
  ReductionArray array = nullptr;
  std::memcpy(&array, static_cast<char*>(data) + 16, sizeof array);
  return array;
}

struct Construct {
  Function function;
  void* data;
  CopyFunction copy;
  long bytes;
  long alignment;
  unsigned flags;
  int priority;
};

void begin_part(Thread& thread, const Construct& construct, bool at_once, std::uint64_t begin,
                std::uint64_t end) {
  Task& task = new_task(thread, (construct.flags & kTaskFinal) != 0);
  task.function = construct.function;
  if ((construct.flags & kTaskPriority) != 0)
    task.priority = std::clamp(construct.priority, 0, settings.max_task_priority);
  copy_arguments(thread, task, construct.data, construct.copy, std::size_t(construct.bytes),
                 std::size_t(construct.alignment));
  const std::uint64_t bounds[2] = {begin, end};
  std::memcpy(task.arguments, bounds, sizeof bounds);
  if (at_once) {
    run_now(thread, task);
  } else {
    Task* one = &task;
    queue_tasks(thread, &one, 1);
  }
}

void begin_parts(Thread& thread, const Construct& construct, const Iterations& it,
                 const Parts& parts) {
  const bool at_once = runs_at_once(thread, (construct.flags & kTaskIf) != 0);
  std::uint64_t begin = 0;
  for (std::uint64_t i = 0; i < parts.tasks; ++i) {
    const std::uint64_t more = i < parts.longer ? 1 : 0;
    const std::uint64_t end = i + 1 == parts.tasks ? it.count : begin + parts.each + more;
    begin_part(thread, construct, at_once, it.first + begin * it.step,
               end == it.count ? it.end : it.first + end * it.step);
    begin = end;
  }
}

void taskloop(const Construct& construct, const Iterations& iterations, std::uint64_t number) {
  Thread& thread = this_thread();
  const bool grouped = (construct.flags & kTaskNoGroup) == 0;
  const bool reduces = grouped && (construct.flags & kTaskReduction) != 0;
  if (is_cancelled(thread) || iterations.count == 0) {
    // Tells the program that there is nothing to combine.
    if (reduces) reductions_of(construct.data)[kReductionMemory] = 0;
    return;
  }
  if (grouped) start_task_group();
  if (reduces)
    register_reductions(*thread.at.task->group, reductions_of(construct.data), nullptr,
                        thread.at.team->size);
  begin_parts(thread, construct, iterations,
              divide(iterations.count, number, construct.flags, thread.at.team->size));
  if (grouped) end_task_group();
}

}  // namespace
}  // namespace krg::omp

using namespace krg::omp;
using Ull = unsigned long long;
#pragma GCC visibility push(default)
extern "C" {

void GOMP_taskloop(Function function, void* data, CopyFunction copy, long bytes, long alignment,
                   unsigned flags, unsigned long number, int priority, long start, long end,
                   long step) {
  taskloop({function, data, copy, bytes, alignment, flags, priority}, range(start, end, step),
           number);
}
void GOMP_taskloop_ull(Function function, void* data, CopyFunction copy, long bytes, long alignment,
                       unsigned flags, unsigned long number, int priority, Ull start, Ull end,
                       Ull step) {
  taskloop({function, data, copy, bytes, alignment, flags, priority},
           range((flags & kTaskUp) != 0, start, end, step), number);
}
}
