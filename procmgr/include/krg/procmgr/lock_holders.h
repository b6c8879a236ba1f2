// LockHolders: who holds the locks by fcntl(2) of processes that have left this node, in this
// node's kernel: the shadow that a process left here, under its pid and with its descriptor table,
// so that no lock is ever let go of while it moves.
//
// Threads: the loop's thread. Implemented by ShadowHost; asked by Descriptors.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fcntl.h>

#include <cstdint>
#include <functional>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"

namespace krg {

// As fcntl(2)'s struct flock with SEEK_SET.
struct RecordLock {
  int64_t start = 0;
  int64_t length = 0;  // 0: to the end, however long the file grows
  int32_t type = F_UNLCK;
  pid_t pid = 0;  // who has it, of an answer to F_GETLK
};
static_assert(sizeof(RecordLock) == 24);

class LockHolders {
 public:
  using Done = std::function<void(Result<RecordLock>)>;

  virtual ~LockHolders() = default;
  // Whether there is one of that process here.
  virtual bool holds_for(pid_t pid) const = 0;
  // Its fcntl(file, command, lock), which does not wait: F_SETLK or F_GETLK. Errors: of fcntl(2).
  virtual void lock(pid_t pid, int file, int command, const RecordLock& lock, Done done) = 0;
  // Its process has closed that file: no lock of it remains.
  virtual void let_go(pid_t pid, int file) = 0;
  // Whether that process executes on this node.
  virtual bool executes_here(pid_t pid) const = 0;
  // The node where it, or its shadow, lives until it ends.
  virtual NodeId home_of(pid_t pid) const = 0;
};

}  // namespace krg
