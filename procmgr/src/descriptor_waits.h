// Which threads wait for what a descriptor brings: asked of procfs, process by process.
// Threads: any; may block (a process's memory is read, which krgd's loop may have to bring).
// Source: /proc/PID/task/TID/syscall (proc(5)). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace krg {

// A numeric entry of a directory of procfs that `holds` says so of.
std::optional<int> find_number_in(const std::string& path, const std::function<bool(int)>& holds);

// Whether descriptor `number` of a process is what /proc shows as `link`.
bool links_to(pid_t pid, int number, const std::string& link);
std::optional<int> find_open(pid_t pid, const std::string& link);

// The system call that a thread is blocked in, and its arguments; none: it runs.
struct BlockedCall {
  long number = -1;
  unsigned long arguments[6] = {};
};
std::optional<BlockedCall> blocked_call(pid_t pid, pid_t tid);

// Whether a thread of `pid` is blocked until something comes by `link`: in read, recv or accept, or
// in poll, select or epoll_wait among others.
bool waits_for(pid_t pid, const std::string& link);

}  // namespace krg
