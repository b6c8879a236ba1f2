// FlockKeeper: the tree of krgfs that keeps the locks by flock(2) of all files of krgfs.
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "flock_table.h"
#include "krg/procmgr/session_fs.h"

namespace krg {

class FlockKeeper {
 public:
  virtual ~FlockKeeper() = default;
  // `inode`: the file's st_ino. FsTree::interrupt() of the keeper ends waits.
  virtual void flock(const FsCaller& caller, ino_t inode, uint64_t handle,
                     const FlockRequest& asked, FsReply<int> reply) = 0;
  // An open file is closed that had asked for locks as `owner`.
  virtual void drop_flock(ino_t inode, uint64_t owner) = 0;
};

}  // namespace krg
