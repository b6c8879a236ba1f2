// hold_at_exec(): holds a child of krgd's when it has execed, before its program's first
// instruction. Until then the child is not disturbed. Should krgd end while it holds it, the child
// dies. Threads: the loop's thread, which is the tracer. Source: ptrace(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>

#include "image/frozen_thread.h"
#include "krg/procmgr/child_reaper.h"

namespace krg {

// REQUIRES: the child cannot have execed yet. `held` runs later, in the loop; its error: ESRCH: the
// child has ended. Errors: of PTRACE_SEIZE.
Status hold_at_exec(ChildReaper& reaper, pid_t child,
                    std::function<void(Result<FrozenThread>)> held);

// The main thread of a process that is stopped by job control execs, with all signals blocked, and
// is then let go: the new program is stopped before its first instruction, which the process's
// parent, who knows of the stop, does not notice. When it cannot, it is killed. Errors: ESRCH.
Status let_go_at_exec(ChildReaper& reaper, FrozenThread& thread, RemoteAddr instruction,
                      long number, FrozenThread::Arguments arguments);

}  // namespace krg
