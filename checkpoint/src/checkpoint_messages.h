// The messages between the nodes of a checkpoint or restart.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/node_context.h"

namespace krg::message_ids {
inline constexpr uint16_t kCheckpoint = 352;
}  // namespace krg::message_ids

namespace krg::checkpoint_messages {

inline constexpr uint8_t kVersion = 1;

// Who is told how far a checkpoint or restart is: a connection of a node's control socket; 0:
// nobody.
struct Audience {
  NodeId node;
  uint64_t connection = 0;
};

// Request to where `pid` executes, or, with `is_above`, to where its shadow is: the application
// that it belongs to, `root` being the topmost process known so far. With `job`, to where that has
// begun: `root` is an orphan of it. Reply: an Application. Errors: ESRCH, EPERM.
struct FindApplication {
  static constexpr uint16_t kId = message_ids::kCheckpoint;
  uint8_t version = kVersion;
  uint8_t is_above = 0;
  NodeId root_node;
  uint32_t job = 0;
  pid_t pid = 0, root = 0;
};
struct Application {
  pid_t root = 0;
  NodeId node;       // where that executes
  uint32_t job = 0;  // all of which it is: orphans belong to it; 0: of none
};

// Request: the topmost processes of applications that the node knows of. Reply: pids (pid_t rows).
struct ListTopmost {
  static constexpr uint16_t kId = message_ids::kCheckpoint + 11;
  uint8_t version = kVersion;
};

// Request to where an application's root executes: the command `checkpoint`. Payload: its
// arguments, JSON. Reply: its result.
struct AskCheckpoint {
  static constexpr uint16_t kId = message_ids::kCheckpoint + 1;
  uint8_t version = kVersion;
  pid_t root = 0, asker = 0;
  uint32_t job = 0;         // Application's
  uint64_t connection = 0;  // of the asking node: is told of the progress; 0: nobody
};

// Request: write the node's part. Payload: the folder and the family (payloads.h). Reply:
// PartWritten of it, then one for each version that it needs.
struct WritePart {
  static constexpr uint16_t kId = message_ids::kCheckpoint + 2;
  uint8_t version = kVersion;
  uint8_t compress = 0;
  uint32_t number = 0, base = 0;  // of the version, and of the one that it goes on from
  uint64_t capture = 0, id = 0, base_id = 0;
  uint64_t live = 0;  // the watch under which WriteLive has written some of it; 0: none
  Audience audience;
};
// Request, before that: write what large members of the node have, while they run. Payload: the
// folder.
struct WriteLive {
  static constexpr uint16_t kId = message_ids::kCheckpoint + 10;
  uint8_t version = kVersion;
  uint8_t compress = 0;
  uint32_t number = 0;
  uint64_t watch = 0, id = 0;
  Audience audience;
};
struct PartWritten {
  uint64_t page_bytes = 0, memory_bytes = 0;
  uint64_t stored_or_id = 0;  // bytes stored; the id of a needed version
  uint64_t version = 0;       // the needed one
};

// Request: these pids and thread ids are of processes that are restarted; those that are not there
// any more are forgotten with `forget`. Payload: the pids. Errors: EEXIST: one is taken.
struct SettlePids {
  static constexpr uint16_t kId = message_ids::kCheckpoint + 3;
  uint8_t version = kVersion;
  uint8_t forget = 0;
};

// Request: the contents of pages of bodies that stand there. Payload: the folder and their pids
// (payloads.h). The reply: they may run. Errors: those of reading.
struct LoadPages {
  static constexpr uint16_t kId = message_ids::kCheckpoint + 4;
  uint8_t version = kVersion;
  uint8_t is_lazy = 0;  // pages may come while they run: AwaitPages follows
  uint32_t number = 0;  // of the version
  uint64_t id = 0;
  uint64_t load = 0;  // with `is_lazy`: a number of the asker's
  Audience audience;
};

// Notice to the audience's node: bytes of this node.
struct PartProgress {
  static constexpr uint16_t kId = message_ids::kCheckpoint + 6;
  uint8_t version = kVersion;
  uint64_t connection = 0;
  uint64_t done = 0, total = 0;
};

// Request, after LoadPages with `is_lazy`. The reply: all pages are there. Errors: what is lost;
// the members there have been killed.
struct AwaitPages {
  static constexpr uint16_t kId = message_ids::kCheckpoint + 7;
  uint8_t version = kVersion;
  uint64_t load = 0;  // LoadPages'
};

// Request: the members of an application that want to be called (callbacks.h). Errors: ETIMEDOUT.
struct CallMembers {
  static constexpr uint16_t kId = message_ids::kCheckpoint + 5;
  uint8_t version = kVersion;
  uint8_t after = 0;
  pid_t root = 0;
};

// Request to where a process executes: what is to be left out of its checkpoints (PageRange rows).
struct LeaveOut {
  static constexpr uint16_t kId = message_ids::kCheckpoint + 8;
  uint8_t version = kVersion;
  pid_t pid = 0;
};

// Request to where the place of an application's root is: its data, set first with `sets`. Reply:
// the value, 8 bytes.
struct KeepData {
  static constexpr uint16_t kId = message_ids::kCheckpoint + 9;
  uint8_t version = kVersion;
  uint8_t sets = 0;
  pid_t root = 0;
  uint64_t value = 0;
};

}  // namespace krg::checkpoint_messages
