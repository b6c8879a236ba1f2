// Whether a process shares memory by name with others: its children, which find it by that name,
// can do so on its own node only. Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <string_view>

namespace krg {

// True when the path is that of a POSIX shared memory object or semaphore (shm_overview(7)).
bool is_posix_shared_memory(std::string_view path);

// True when the process has mapped such an object or a System V segment. Costs two system calls
// where the node has none of them.
bool maps_shared_memory(pid_t pid);

}  // namespace krg
