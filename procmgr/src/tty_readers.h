// Finds out which processes wait for input from a terminal. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace krg {

// A kernel group with a thread inside read(2) of the terminal (`is_reading`), or in poll, select or
// epoll of a process that has it open.
struct TtyReaders {
  pid_t group;
  bool is_reading;
};

// Who of this node waits for `tty` ("/dev/pts/3") and is not stopped. Source:
// /proc/PID/task/TID/syscall (proc(5)).
std::vector<TtyReaders> find_tty_readers(const std::string& tty);

}  // namespace krg
