// Who makes an IPC call, and what signals do to a thread that waits in one: read from the text of
// /proc/TID/status. Parsing is pure. Source: proc_pid_status(5), signal(7).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>

#include "ipc_call.h"
#include "krg/runtime/result.h"

namespace krg {

// Errors: ESRCH.
Result<IpcCaller> read_ipc_caller(pid_t tid);
Result<IpcCaller> parse_ipc_caller(const std::string& status);

// The signals of a waiting thread.
struct SignalState {
  pid_t process = 0;
  char state = '?';
  unsigned threads = 1;
  uint64_t own = 0;     // pending for the thread itself
  uint64_t shared = 0;  // pending for its process
  uint64_t blocked = 0, ignored = 0;

  bool has_ended() const { return state == 'Z' || state == 'X'; }
  // A signal that only this thread can take.
  bool has_own_signal() const {
    return ((own | (threads == 1 ? shared : 0)) & ~blocked & ~ignored) != 0;
  }
  // One that another thread may be about to take.
  bool has_shared_signal() const { return (shared & ~blocked & ~ignored) != 0; }
};
Result<SignalState> read_signal_state(pid_t tid);
Result<SignalState> parse_signal_state(const std::string& status);

// True when another thread of `tid`'s process stands still by job control: this one has to stop,
// too, and no signal shows it any more.
bool is_group_stopped(pid_t process, pid_t tid);

}  // namespace krg
