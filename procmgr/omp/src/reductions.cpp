// Task reductions: memory for each member's copies of the list items, and where an item's copy of
// the calling member lies. abi.h has the layout of the arrays.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstdlib>
#include <cstring>

#include "loops.h"

namespace krg::omp {
namespace {

std::uintptr_t copies_for(std::size_t bytes, std::size_t alignment) {
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max<std::size_t>(alignment, 64),
                     std::max<std::size_t>(bytes, 1)) != 0)
    fatal("no memory for %zu bytes of reductions", bytes);
  std::memset(memory, 0, bytes);
  return reinterpret_cast<std::uintptr_t>(memory);
}

// The item of `data` whose original or one of whose copies `pointer` is; its three words.
const std::uintptr_t* item_at(const std::uintptr_t* data, std::uintptr_t pointer) {
  const bool copy = pointer >= data[kReductionMemory] && pointer < data[kReductionEnd];
  const std::uintptr_t offset =
      copy ? (pointer - data[kReductionMemory]) % data[kReductionBytes] : 0;
  for (std::uintptr_t i = 0; i < data[kReductionItems]; ++i) {
    const std::uintptr_t* item = data + kReductionHead + 3 * i;
    if (copy ? item[1] == offset : item[0] == pointer) return item;
  }
  return nullptr;
}

}  // namespace

void register_reductions(TaskGroup& group, ReductionArray data, const std::uintptr_t* original,
                         unsigned threads) {
  auto* outer =
      reinterpret_cast<std::uintptr_t>(group.reductions) == 0 ? nullptr : group.reductions;
  for (ReductionArray array = data;;) {
    if (original != nullptr) {
      array[kReductionMemory] = original[kReductionMemory];
      array[kReductionEnd] = original[kReductionEnd];
      original = reinterpret_cast<const std::uintptr_t*>(original[kReductionNext]);
    } else {
      const std::size_t bytes = array[kReductionBytes] * threads;
      array[kReductionMemory] = copies_for(bytes, array[kReductionMemory]);
      array[kReductionEnd] = array[kReductionMemory] + bytes;
    }
    array[kReductionFirst] = array == data ? 1 : 0;
    if (array[kReductionNext] == 0) {
      array[kReductionNext] = reinterpret_cast<std::uintptr_t>(outer);
      break;
    }
    array = reinterpret_cast<ReductionArray>(array[kReductionNext]);
  }
  group.reductions = data;
}

void free_reductions(ReductionArray data) {
  do {
    std::free(reinterpret_cast<void*>(data[kReductionMemory]));
    data = reinterpret_cast<ReductionArray>(data[kReductionNext]);
  } while (data != nullptr && data[kReductionFirst] == 0);
}

void begin_share_reductions(Thread& thread, ReductionArray mine, bool first) {
  WorkShare& share = *thread.at.share;
  start_task_group();
  TaskGroup& group = *thread.at.task->group;
  group.of_work_share = true;
  register_reductions(group, mine, first ? nullptr : share.reductions, thread.at.team->size);
  if (first) share.reductions = mine;
}

}  // namespace krg::omp

using namespace krg::omp;
#pragma GCC visibility push(default)
extern "C" {

void GOMP_taskgroup_reduction_register(ReductionArray data) {
  Thread& thread = this_thread();
  register_reductions(*thread.at.task->group, data, nullptr, thread.at.team->size);
}
void GOMP_taskgroup_reduction_unregister(ReductionArray data) {
  free_reductions(data);
}

void GOMP_task_reduction_remap(std::size_t count, std::size_t originals, void** pointers) {
  Thread& thread = this_thread();
  for (std::size_t i = 0; i < count; ++i) {
    const auto pointer = reinterpret_cast<std::uintptr_t>(pointers[i]);
    const TaskGroup* group = thread.at.task->group;
    const std::uintptr_t* data = group != nullptr ? group->reductions : nullptr;
    const std::uintptr_t* item = nullptr;
    while (data != nullptr && (item = item_at(data, pointer)) == nullptr)
      data = reinterpret_cast<const std::uintptr_t*>(data[kReductionNext]);
    if (item == nullptr)
      fatal("couldn't find matching task_reduction or reduction with task modifier for %p",
            pointers[i]);
    pointers[i] = reinterpret_cast<void*>(data[kReductionMemory] +
                                          thread.at.number * data[kReductionBytes] + item[1]);
    if (i < originals) pointers[count + i] = reinterpret_cast<void*>(item[0]);
  }
}

void GOMP_workshare_task_reduction_unregister(bool cancelled) {
  Thread& thread = this_thread();
  ReductionArray data = thread.at.task->group->reductions;
  end_task_group();
  if (thread.at.number == 0) free_reductions(data);
  if (!cancelled) wait_at_barrier(thread, false, __builtin_return_address(0));
}
}
