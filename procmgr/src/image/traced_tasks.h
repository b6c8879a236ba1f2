// What is done to tasks that were made in a traced process, by the tracer. Threads: the loop's
// thread, which is the tracer. Source: ptrace(2). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

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
// Kills it, and reaps it as its tracer.
void end_task(pid_t tid);

}  // namespace krg
