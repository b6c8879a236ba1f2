// The threads that a process has now, as procfs tells. Threads: any. Source: proc_pid_task(5).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <vector>

namespace krg {

// None of a process that there is not.
std::vector<pid_t> threads_of(pid_t pid);

}  // namespace krg
