// What nodes say to each other about System V IPC and POSIX message queues. The home of all objects
// is the lowest node that lives. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstring>

#include "ipc_call.h"
#include "krg/procmgr/node_context.h"

namespace krg::ipc_messages {

// Behind those of the pages and names of shared memory (message_ids, shared_messages.h).
inline constexpr uint16_t kPosixQueues = message_ids::kSharedMemory + 12;

// "Carry this call out." Payload: the caller's groups (4 bytes each), then what the call reads.
// The answer may come late: the value (8 bytes), then what the call writes; or an errno value,
// ECANCELED after a CancelCall that came in time.
struct MakeCall {
  static constexpr uint16_t kId = message_ids::kIpc + 0;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  int32_t number = 0;
  uint64_t ticket = 0;
  int32_t pid = 0;
  uint32_t uid = 0, gid = 0, group_count = 0;
  uint64_t capabilities = 0;
  std::array<int64_t, 4> args{};
};
static_assert(sizeof(MakeCall) == 72);

// "The caller waits no longer."
struct CancelCall {
  static constexpr uint16_t kId = message_ids::kIpc + 1;
  uint8_t version = 1;
  uint8_t padding[7] = {};
  uint64_t ticket = 0;
};
static_assert(sizeof(CancelCall) == 16);

// "This call waited and was carried out, but its caller had died." Payload: as MakeCall's for
// semop; the message that was to be received for msgrcv.
struct TakeBack {
  static constexpr uint16_t kId = message_ids::kIpc + 2;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  int32_t number = 0;
  int64_t object = 0;
};
static_assert(sizeof(TakeBack) == 16);

struct ProcessEnded {
  static constexpr uint16_t kId = message_ids::kIpc + 3;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  int32_t pid = 0;
};
static_assert(sizeof(ProcessEnded) == 8);

// Answered with the text of /proc/sysvipc/{sem,msg}, or a line for each POSIX queue.
struct TellObjects {
  static constexpr uint16_t kId = message_ids::kIpc + 4;
  uint8_t version = 1;
  uint8_t of_queues = 0;  // 0: semaphores, 1: System V queues, 2: POSIX queues
};
static_assert(sizeof(TellObjects) == 2);

// "A message has come to a queue that had none" (PosixQueueNotice), to the listener's node.
struct QueueNotice {
  static constexpr uint16_t kId = kPosixQueues + 0;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  int32_t process = 0;
  int64_t queue = 0;
  int32_t how = 0, signal = 0;
  int64_t value = 0;
  int32_t sender = 0;
  uint32_t sender_uid = 0;
};
static_assert(sizeof(QueueNotice) == 40);

// "What poll(2) says of a queue may have changed", to a node that asked for it.
struct QueueChanged {
  static constexpr uint16_t kId = kPosixQueues + 1;
  uint8_t version = 1;
  uint8_t padding[7] = {};
  int64_t queue = 0;
};
static_assert(sizeof(QueueChanged) == 16);

// Request to the home: what a family that stands has. Payload: members, other processes (32-bit
// counts, pids), POSIX queues that members have open (count, numbers). Answered with a SavedIpc
// (with its length), then the numbers of its POSIX queues.
struct SaveObjects {
  static constexpr uint16_t kId = kPosixQueues + 2;
  uint8_t version = 1;
  uint8_t padding[7] = {};
};
static_assert(sizeof(SaveObjects) == 8);

// Request to the home: those of a SavedIpc, the payload, are there again, or are dropped. Answered
// with the numbers of its POSIX queues, each of which the asking node uses.
struct RestoreObjects {
  static constexpr uint16_t kId = kPosixQueues + 3;
  uint8_t version = 1;
  uint8_t drops = 0;
  uint8_t padding[6] = {};
};
static_assert(sizeof(RestoreObjects) == 8);

// To the node where a restarted process executes, or has its place: its end is to be told.
struct WatchEnd {
  static constexpr uint16_t kId = message_ids::kIpc + 15;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  int32_t pid = 0;
};
static_assert(sizeof(WatchEnd) == 8);

}  // namespace krg::ipc_messages
