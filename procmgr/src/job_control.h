// JobControl: what the kernel says of a process's group, session and controlling terminal. Read
// when it is asked for. Source: proc_pid_stat(5). Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

namespace krg {

struct JobControl {
  pid_t group = 0, session = 0;  // 0: led by a process outside of the session
  int terminal = 0;              // 0: none
  pid_t foreground = -1;         // the terminal's foreground group
};

// All unset when the process has gone.
JobControl job_control_of(pid_t pid);

// As the kernel does to a group that reads its terminal in the background (termios(3)): SIGTTIN.
// Returns whether it is in the background; a group that is not known (<= 0) is not.
bool stop_if_in_background(pid_t group, pid_t foreground);

}  // namespace krg
