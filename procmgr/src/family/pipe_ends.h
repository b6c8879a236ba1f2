// Which ends of pipes and FIFOs processes have (pipe(7)), and what is in them. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fcntl.h>
#include <sys/types.h>

#include <string>

#include "krg/runtime/result.h"
#include "process_fds.h"

namespace krg {

inline bool reads(const StolenFd& fd) {
  return (fd.flags & O_ACCMODE) != O_WRONLY;
}
inline bool writes(const StolenFd& fd) {
  return (fd.flags & O_ACCMODE) != O_RDONLY;
}

// Nobody has the other end of a pipe any more.
bool has_no_other_end(const StolenFd& fd);
// Nobody has a FIFO open to write that is empty, whether or not somebody had before.
bool has_no_writer(const StolenFd& reader);
// Where that FIFO is; empty: a pipe, or one that has no name any more.
std::string path_of_fifo(const StolenFd& fd);
// Whether a process has the other end of that pipe open.
bool has_other_end(pid_t pid, const StolenFd& end);

// What is in flight, which stays there. capacity: of the pipe, in bytes (F_GETPIPE_SZ).
// Errors: of open(2), pipe(2), tee(2) and ioctl(2); EMSGSIZE: more came meanwhile.
Result<std::string> contents_of_pipe(const StolenFd& end, int capacity);

}  // namespace krg
