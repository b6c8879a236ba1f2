// ProcessFds: the descriptors of another process: which it has, what they are, and copies of them.
// Threads: any; each call reads the kernel anew. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/stat.h>

#include <functional>
#include <string>
#include <vector>

#include "krg/procmgr/descriptors.h"
#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// A descriptor of another process, and a copy of it.
struct StolenFd {
  int number = -1;
  int flags = 0;       // F_GETFL
  int64_t offset = 0;  // file position
  bool close_on_exec = false;
  UniqueFd copy;
  struct stat attributes {};   // as far as known without asking the file system
  std::string link;            // what /proc/PID/fd/N points to
  bool flocked = false;        // by flock(2) or F_OFD_SETLK: the description is
  bool record_locked = false;  // by F_SETLK of fcntl(2): the process has the lock
  bool leased = false;         // by F_SETLEASE
};

// Copies of the descriptors of `pid`, by number. Never makes a FUSE
// file system answer: krgd may be the one who serves it. Errors: ESRCH; EPERM where ptrace is not
// allowed.
Result<std::vector<StolenFd>> steal_fds(pid_t pid, WhichFds which = WhichFds::kKeptByExec);

// The same of a descriptor of krgd's own, by its number here.
Result<StolenFd> describe_own_fd(UniqueFd fd);

// Whether it holds a lock by F_SETLK of fcntl(2). That it cannot be looked at means no.
bool holds_record_locks(pid_t pid);

// Which file descriptor `number` of a thread is, without asking its file system.
struct FdIdentity {
  dev_t device = 0;
  ino_t inode = 0;
  auto operator<=>(const FdIdentity&) const = default;
};
Result<FdIdentity> fd_identity(pid_t tid, int number);
// The same of a descriptor of krgd's own.
Result<FdIdentity> own_fd_identity(int fd);
// What /proc shows for it: a path, where it has one. Errors: EBADF.
Result<std::string> link_of_fd(pid_t tid, int number);
// The descriptors of a thread's process that are a file that is meant.
std::vector<int> descriptors_of(pid_t tid, const std::function<bool(const FdIdentity&)>& is_meant);
// The offset of descriptor `number`: that of its description, which a read(2) may have locked.
Result<int64_t> offset_of_fd(pid_t tid, int number);
// How many descriptors of that file a process has.
unsigned count_open(pid_t pid, const FdIdentity& file);
// A copy of it. Errors: EBADF, EPERM where ptrace is not allowed.
Result<UniqueFd> steal_fd(pid_t tid, int number);

bool is_listening(int fd);
bool is_listening(const StolenFd& fd);
// What a person calls it: "an epoll instance", "a listening socket", "a pipe".
std::string describe_fd(const StolenFd& fd);

}  // namespace krg
