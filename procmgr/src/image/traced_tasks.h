// What the tracer does to single tasks: those that were made in a traced process, and callers of a
// system call that krgd has stopped. Threads: the loop's thread, which is the tracer. Source:
// ptrace(2). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <functional>

#include "krg/procmgr/child_reaper.h"
#include "krg/procmgr/syscall_broker.h"
#include "krg/runtime/types.h"

namespace krg {

// What runs with such a stack dies at once.
inline constexpr uint64_t kNoStack = 8;

// The first stop of a new tracee, whether or not the ChildReaper has met it already. False: it has
// died.
bool has_first_stop(pid_t task);
// Closes what the stopped task has open, and has it stand where it would end if it were let go.
// `instruction`: a `syscall` that it has. False: it has died.
bool becomes_page_source(pid_t task, RemoteAddr instruction);
// The caller, which waits in `call` for krgd's answer, is traced from now on and on its way to a
// stop; `on_event` is told of all that it meets. The call itself is over, and the program never
// sees how. Errors: of PTRACE_SEIZE; the call stands as before.
Status stop_caller(ChildReaper& reaper, SyscallBroker::Call& call,
                   std::function<void(const ChildEvent&)> on_event);
// Kills it, and reaps it as its tracer.
void end_task(pid_t tid);

}  // namespace krg
