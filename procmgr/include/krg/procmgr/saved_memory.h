// SavedMemory: a file of the memory that nodes share (krg/procmgr/shared_memory.h) as a checkpoint
// has it: a POSIX shared memory object, a System V segment, anonymous shared memory, or a folder or
// link of /dev/shm. What is in it is beside it. Threads: a value.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "krg/procmgr/saved_ipc.h"
#include "krg/runtime/result.h"

namespace krg {

struct SavedMemory {
  uint64_t id = 0;                          // what images and open files call it by
  uint32_t mode = 0, uid = 0, gid = 0;      // as stat(2) has them
  uint32_t is_segment = 0, is_removed = 0;  // IPC_RMID: it goes when none has it attached any more
  uint64_t bytes = 0;                       // its length
  uint64_t covered = 0;                     // bytes: so far mappings reach, which may be farther
  SavedIpcObject object;                    // of a segment
  std::vector<std::string> names;           // below /dev/shm; none: it has none
  std::string target;                       // of a link
  std::string
      contents;  // not packed: from the beginning, when it is made again; the rest is beside

  bool is_file() const { return S_ISREG(mode); }
};

std::string pack_memories(const std::vector<SavedMemory>& memories);
// Error: EBADMSG.
Result<std::vector<SavedMemory>> unpack_memories(std::string_view bytes);

}  // namespace krg
