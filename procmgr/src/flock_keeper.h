// FlockKeeper: the tree of krgfs that keeps the locks by flock(2) and fcntl(2) of all files of
// krgfs.
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "flock_table.h"
#include "krg/procmgr/lock_holders.h"
#include "krg/procmgr/session_fs.h"

namespace krg {

// What fcntl(2) asks of an open file: F_GETLK or F_SETLK, or F_SETLK until it is had.
struct RecordLockRequest {
  uint64_t owner = 0;  // names the process's descriptor table, or the description (F_OFD_SETLK)
  int command = F_GETLK;
  bool waits = false;
  RecordLock lock;
};

class FlockKeeper {
 public:
  virtual ~FlockKeeper() = default;
  // `inode`: the file's st_ino. FsTree::interrupt() of the keeper ends waits.
  virtual void flock(const FsCaller& caller, ino_t inode, uint64_t handle,
                     const FlockRequest& asked, FsReply<int> reply) = 0;
  // An open file is closed that had asked for locks as `owner`.
  virtual void drop_flock(ino_t inode, uint64_t owner) = 0;
  // The answer to F_GETLK; of no meaning for F_SETLK.
  virtual void record_lock(const FsCaller& caller, ino_t inode, uint64_t handle,
                           const RecordLockRequest& asked, FsReply<RecordLock> reply) = 0;
  // An open file is closed by all who had it.
  virtual void drop_record_locks(ino_t inode) = 0;
};

}  // namespace krg
