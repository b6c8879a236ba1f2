// ActAs: a thread does something as another user. Threads: one that runs nothing else meanwhile, a
// worker. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "krg/runtime/check.h"
#include "krg/runtime/result.h"

namespace krg {

// Who asks. Supplementary groups do not count.
struct FileUser {
  uid_t uid = 0;
  gid_t gid = 0;
};

// Makes this thread, and only it, act as `user`: the raw system calls change one thread where
// glibc's functions change all of them (setresuid(2), "C library/kernel differences"). Effective
// capabilities go with the effective uid and come back with it, since the saved uid stays.
class ActAs {
 public:
  explicit ActAs(FileUser user) {
    if (user.uid == geteuid()) return;
    own_uid_ = geteuid();
    own_gid_ = getegid();
    changed_ = syscall(SYS_setresgid, -1, user.gid, -1) == 0 &&
               syscall(SYS_setresuid, -1, user.uid, -1) == 0;
    if (!changed_) {
      error_ = errno;
      restore();
    }
  }
  ~ActAs() {
    if (changed_) restore();
  }
  ActAs(const ActAs&) = delete;
  ActAs& operator=(const ActAs&) = delete;

  // False when this krgd cannot act as that user (it serves one user only).
  Status status() const {
    return error_ == 0 ? Status{} : Status{errno_error("act as another user", error_)};
  }

 private:
  void restore() const {
    check(syscall(SYS_setresuid, -1, own_uid_, -1) == 0 &&
              syscall(SYS_setresgid, -1, own_gid_, -1) == 0,
          "a worker gets its own identity back");
  }

  uid_t own_uid_ = 0;
  gid_t own_gid_ = 0;
  bool changed_ = false;
  int error_ = 0;
};

}  // namespace krg
