// Numbers of the GOMP ABI, as compilers write them into programs (gcc 12; GCC's
// include/gomp-constants.h names them).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <cstddef>
#include <cstdint>

namespace krg::omp {

using Function = void (*)(void*);
using CopyFunction = void (*)(void* to, void* from);

// omp_sched_t; the loops' `sched` argument has it too, with 0 for schedule(runtime).
enum class Schedule : unsigned { run_time = 0, fixed = 1, dynamic = 2, guided = 3, automatic = 4 };
inline constexpr unsigned kMonotonic = 0x80000000U;

enum class Bind : unsigned char { no = 0, yes = 1, primary = 2, close = 3, spread = 4 };

// GOMP_cancel, GOMP_cancellation_point.
inline constexpr int kCancelParallel = 1, kCancelLoop = 2, kCancelSections = 4,
                     kCancelTaskGroup = 8;

// GOMP_task, GOMP_taskloop.
inline constexpr unsigned kTaskFinal = 1 << 1, kTaskDepend = 1 << 3, kTaskPriority = 1 << 4,
                          kTaskUp = 1 << 8, kTaskGrainSize = 1 << 9, kTaskIf = 1 << 10,
                          kTaskNoGroup = 1 << 11, kTaskReduction = 1 << 12, kTaskDetach = 1 << 13,
                          kTaskStrict = 1 << 14;

// omp_depend_t objects: address, then one of these.
inline constexpr std::uintptr_t kDependIn = 1;

// GOMP_target*.
inline constexpr unsigned kTargetNowait = 1;
inline constexpr unsigned short kMapFirstPrivate = 0x0c;
inline constexpr std::uintptr_t kTargetSubsequent = 1 << 7, kTargetIdMask = 0xff00,
                                kTargetThreadLimit = 2 << 8;
inline constexpr unsigned kTargetValueShift = 16;
inline constexpr int kHostDevice = 0;  // omp_get_initial_device(): there is no other

// The array that describes task reductions: a head, then three words for each list item.
//   [0] items  [1] bytes of one thread's copies  [2] in: alignment, out: memory of all threads'
//   copies  [3] allocator, or -1 [4] next array of the same construct, then of enclosing ones  [5]
//   not 0 in the first of a construct  [6] end of the memory [7 + 3 i] address of the original item
//   [8 + 3 i] where its copy lies in a thread's copies
using ReductionArray = std::uintptr_t*;
inline constexpr unsigned kReductionItems = 0, kReductionBytes = 1, kReductionMemory = 2,
                          kReductionNext = 4, kReductionFirst = 5, kReductionEnd = 6,
                          kReductionHead = 7;

}  // namespace krg::omp
