// The messages of System V shared memory between a node and the home of shared memory.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "shared_messages.h"

namespace krg {

enum class SegmentOp : uint8_t {
  kGet,       // shmget
  kAttach,    // shmat: the asking node uses the file from the answer on, until SharedNotice
  kDetached,  // shmdt has been done
  kStat,      // IPC_STAT; SHM_STAT by index
  kStatAny,   // SHM_STAT_ANY
  kSet,
  kRemove,
  kInfo,
  kText,       // of /proc/sysvipc/shm
  kIsSegment,  // is the file `size` one? EINVAL: no
};

// A request to the home; the payload is the caller's supplementary groups.
struct SegmentRequest {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 4;
  uint8_t version = 1;
  SegmentOp op = SegmentOp::kGet;
  uint8_t by_index = 0;
  uint8_t padding = 0;
  int32_t flags = 0;  // of shmget, shmat
  int32_t key = 0, id = 0;
  int32_t pid = 0;
  uint32_t uid = 0, gid = 0;
  uint32_t new_mode = 0, new_uid = 0, new_gid = 0;
  uint64_t size = 0;
};
static_assert(sizeof(SegmentRequest) == 48);

// What the home knows of a segment: the answer.
struct SegmentState {
  int32_t id = 0, key = 0;
  uint32_t mode = 0, uid = 0, gid = 0, creator_uid = 0, creator_gid = 0;
  int32_t creator_pid = 0, last_pid = 0;
  uint32_t padding = 0;
  FileId file = 0;
  uint64_t size = 0, attached = 0;
  int64_t attached_s = 0, detached_s = 0, changed_s = 0;
};
static_assert(sizeof(SegmentState) == 88);

struct SegmentTotals {
  int32_t segments = 0, highest_index = 0;
  uint64_t pages = 0;
};

// From the home to every node, as a request: how many mappings of the file it has (64 bits).
struct SegmentCount {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 5;
  uint8_t version = 1;
  uint8_t padding[7] = {};
  FileId file = 0;
};
static_assert(sizeof(SegmentCount) == 16);

}  // namespace krg
