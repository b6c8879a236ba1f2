// Breakpoints: the instructions of a process that a debugger has had replaced by int3, in the
// process at home or in a replica: each has its own copy of a program's text.
//
// Threads: the loop's thread, the process's tracer. Owned by SpreadProcess (for a debugger's time)
// or Replica. Source: proc_pid_mem(5), ptrace(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <map>
#include <optional>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"
#include "spread/traced_thread.h"

namespace krg {

class Breakpoints {
 public:
  // What has stopped a thread by SIGTRAP.
  enum class Trap {
    kBreakpoint,   // it stands before the instruction now, as if it had not met it
    kStep,         // a single step that nobody waits for any more
    kProgramsOwn,  // its signal
  };

  // Known from now on, also where nothing is mapped yet: then EIO is told.
  Status set(pid_t pid, RemoteAddr at);
  void clear(pid_t pid, RemoteAddr at);
  // In what has been mapped there since.
  void set_again(pid_t pid, RemoteAddr start, uint64_t bytes);
  // A copy of the process has none.
  void take_from(pid_t pid) const;
  const auto& all() const { return replaced_; }

  Trap meet(TracedThread& thread) const;

 private:
  std::map<RemoteAddr, std::optional<char>> replaced_;  // by what; nothing is mapped there: none
};

}  // namespace krg
