// Where a process of this node stands in the cluster's tree: its kernel group and session, or,
// where a body leads that group, what its shadow says. Read when it is asked for. Threads: the
// loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/process_table.h"
#include "krg/runtime/result.h"

namespace krg {

// Where a process stands, as its parent sees it.
struct ProcessIdentity {
  pid_t parent = 0, group = 0, session = 0;
};

// `pid`: a process or thread of this node. A body's parent is on another node: 0 here. Errors:
// ESRCH.
Result<ProcessIdentity> process_identity(ProcessTable& table, pid_t pid);
// The same of a process whose place in the kernel's tree is `kernel`.
ProcessIdentity process_identity(ProcessTable& table, pid_t pid, const ProcessIdentity& kernel);

}  // namespace krg
