// ThreadState: what a thread of a spread process is besides memory: it goes with it from node to
// node. Its signal mask, alternate stack and robust list stay with its original at home, whose
// system calls are its own. Threads: a value. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/user.h>

#include <map>
#include <string>
#include <string_view>

#include "krg/runtime/result.h"

namespace krg {

struct ThreadState {
  user_regs_struct registers{};
  std::string extended_state;  // NT_X86_XSTATE

  // Error: EBADMSG.
  static Result<ThreadState> parse(std::string_view bytes);
  std::string serialize() const;
};

// A thread that stands in a replica, as a capture takes it.
struct CapturedThread {
  ThreadState state;
  bool is_at_rest = false;  // else it is about to become something else
  bool is_in_call = false;  // which has no answer yet
};
// By their numbers at home.
struct CapturedThreads : std::map<pid_t, CapturedThread> {
  // Error: EBADMSG.
  static Result<CapturedThreads> parse(std::string_view bytes);
  std::string serialize() const;
};

// The registers of a thread that is to make once more the system call that it stands in (at its
// entry, or interrupted): at the instruction, with all its arguments.
user_regs_struct before_the_call(user_regs_struct registers);
// Stopped in a call that the kernel would begin anew by itself (ERESTARTSYS and its like).
bool is_to_be_restarted(const user_regs_struct& registers);
// ... and go on with by what only this kernel remembers of it (ERESTART_RESTARTBLOCK).
bool is_remembered_by_kernel(const user_regs_struct& registers);

}  // namespace krg
