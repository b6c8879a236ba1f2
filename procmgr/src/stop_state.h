// What a process is about to do by job control (signal(7)). Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <csignal>
#include <cstdint>

#include "krg/procmgr/process_table.h"
#include "process_spec.h"
#include "process_status.h"

namespace krg {

// A SIGSTOP waits, which a SIGCONT would take away, and the news of both with it. Source: proc(5).
inline bool is_about_to_stop(pid_t pid) {
  const auto status = StatusText::read(pid);
  return status && (status->number<uint64_t>("ShdPnd", 16) >> (SIGSTOP - 1) & 1) != 0;
}

// A SIGCONT waits, of the process or of its main thread, which stopping it anew would take away.
inline bool is_about_to_go_on(pid_t pid) {
  const auto status = StatusText::read(pid);
  if (!status) return false;
  const auto waiting =
      status->number<uint64_t>("ShdPnd", 16) | status->number<uint64_t>("SigPnd", 16);
  return (waiting >> (SIGCONT - 1) & 1) != 0;
}

// It stands to be moved, and its image may have been taken: a SIGCONT would have its parent be told
// here that it goes on, which it does where it is to go, after it has stopped there anew.
inline bool stands_to_be_moved(const ProcessTable& table, pid_t pid) {
  if (!table.ends_waits(pid)) return false;
  const auto stat = read_process_stat(pid);
  return stat && stat->state == 't';
}

}  // namespace krg
