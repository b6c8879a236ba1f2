// StoredFiles: what a tree of krgfs offers beside FsTree whose files have contents and permissions
// of their own, as a file system's have. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/session_fs.h"

namespace krg {

class StoredFiles {
 public:
  virtual ~StoredFiles() = default;
  // fallocate(2) with FALLOC_FL_PUNCH_HOLE: what lies there reads as zeros.
  virtual void punch_hole(FileId file, uint64_t offset, uint64_t bytes, FsReply<int> reply) = 0;
};

// Whether access(2) with that mode is granted: as the kernel does for such attributes. `groups`: of
// the caller beside its own.
bool grants_access(const FsCaller& caller, const std::vector<gid_t>& groups,
                   const struct stat& file, int mode);

}  // namespace krg
