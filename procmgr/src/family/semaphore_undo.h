// What a stopped process has said is to be undone at its end (SEM_UNDO, semop(2)), which no call
// tells: found by operations that cannot be carried out, of which the kernel says whether they
// would have gone beyond the bounds of what can be undone. Nothing is changed by that.
//
// Threads: the loop's thread. Source: semop(2), ERANGE; SEMAEM in Linux's include/uapi/linux/sem.h.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <vector>

#include "image/frozen_process.h"

namespace krg {

// What is added to each semaphore of set `id`, whose values are known, when the process ends;
// empty: nothing. REQUIRES: nobody uses the set. Errors: of semop(2), ESRCH.
Result<std::vector<int32_t>> semaphore_undo_of(FrozenProcess& process, int id,
                                               const std::vector<int32_t>& values);

// Has the process ask for that again; values stay. Errors: the same.
Status put_semaphore_undo(FrozenProcess& process, int id, const std::vector<int32_t>& values,
                          const std::vector<int32_t>& adjustments);

}  // namespace krg
