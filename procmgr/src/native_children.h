// The children that a process has on this node, read from /proc when asked for. A shadow counts.
// Threads: any. Source: proc_pid_task_tid_children(5). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <vector>

namespace krg {

// Which children a waitid(2) means.
struct ChildChoice {
  int id_type;
  pid_t id;
};

// Of all threads of the process; ended ones that nobody has waited for, too.
std::vector<pid_t> native_children(pid_t pid);
bool has_child(pid_t pid);
// Whether one of those meant has ended and waits to be waited for.
bool has_ended_child(pid_t pid, ChildChoice choice);

}  // namespace krg
