// SavedIpc: System V semaphores, message queues and memory segments, and POSIX message queues, as
// they are at one moment, with all that is in them. Taken and made again by NativeIpc
// (ipc/native_ipc.h), where they are a kernel's. Threads: a value.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/result.h"

namespace krg {

struct SavedIpcObject {
  int32_t id = -1;
  int32_t key = 0;
  uint32_t uid = 0, gid = 0, creator_uid = 0, creator_gid = 0;
  uint32_t mode = 0;  // permissions
  uint32_t node = 0;
};

struct SavedSemaphores {
  // What is to be added to each when the process ends (SEM_UNDO).
  struct Undo {
    pid_t pid = 0;
    std::vector<int32_t> adjustments;
  };
  SavedIpcObject object;
  std::vector<int32_t> values;
  std::vector<Undo> undos;
};

struct SavedMessage {
  int64_t type = 0;  // of a POSIX queue: the priority
  std::string text;
};

struct SavedMessageQueue {
  SavedIpcObject object;
  uint64_t most_bytes = 0;
  std::vector<SavedMessage> messages;
};

struct SavedSegment {
  SavedIpcObject object;
  uint64_t bytes = 0;
  uint32_t is_removed = 0;   // IPC_RMID was done: it goes when none has it attached any more
  uint32_t is_attached = 0;  // by members, whose pages have what is in it
  std::string contents;      // else
};

struct SavedPosixQueue {
  SavedIpcObject object;  // of which id, key and creator mean nothing
  std::string name;       // without '/'; empty: it is unlinked
  int64_t most_messages = 0, message_bytes = 0;
  std::vector<SavedMessage> messages;  // in the order in which they are to be received
};

struct SavedIpc {
  std::vector<SavedSemaphores> semaphores;
  std::vector<SavedMessageQueue> message_queues;
  std::vector<SavedSegment> segments;
  std::vector<SavedPosixQueue> posix_queues;

  bool is_empty() const {
    return semaphores.empty() && message_queues.empty() && segments.empty() && posix_queues.empty();
  }
  void append(SavedIpc other);
  std::string serialize() const;
  // Error: EBADMSG.
  static Result<SavedIpc> parse(std::string_view bytes);
};

// What the path of a mapping's file (kSharedMemoryPrefix, process_family.h) is for a segment.
std::string segment_memory_name(int id);
// The segment that it is; -1: none.
int segment_of_memory(std::string_view name);

}  // namespace krg
