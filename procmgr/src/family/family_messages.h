// The messages of FamilyCaptures, from the node that leads a capture to those that have members. A
// capture's number is unique in the cluster. Payloads: PackedWriter's; lists without a count.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/node_context.h"

namespace krg::message_ids {
inline constexpr uint16_t kFamily = 336;
}  // namespace krg::message_ids

namespace krg::family_messages {

inline constexpr uint8_t kVersion = 1;

// Request: stop all of the family that executes there. Payload: the pids that are known. Reply:
// FoundProcess for each of those, of the job's orphans, and of their descendants that is there.
struct FamilyFreeze {
  static constexpr uint16_t kId = message_ids::kFamily;
  uint8_t version = kVersion;
  uint8_t only_look = 0;     // stop none yet
  uint8_t only_watches = 0;  // none is to be taken
  pid_t root = 0, asker = 0;
  uint32_t job = 0;  // whose orphans are members; 0: none's
  uint64_t capture = 0;
};
enum class FoundAs : uint32_t {
  kNative,
  kBody,    // its shadow is elsewhere
  kShadow,  // its body is on `body_node`
  kEnded,   // a zombie, or the asker
};
struct FoundProcess {
  pid_t pid = 0;
  FoundAs as = FoundAs::kNative;
  bool awaits_pages = false;  // of a move; told before they are stopped
  bool is_large = false;      // likewise: saved while it runs, where that is asked for
};

// Request: what its stopped processes have sent has been received. Payload: the nodes (NodeId).
struct FamilyFlush {
  static constexpr uint16_t kId = message_ids::kFamily + 1;
  uint8_t version = kVersion;
  uint8_t is_echo = 0;  // from a node that flushes: answered at once
  uint64_t capture = 0;
};
// Request. Reply: a FamilyPiece.
struct FamilyTake {
  static constexpr uint16_t kId = message_ids::kFamily + 2;
  uint8_t version = kVersion;
  uint64_t capture = 0, base = 0;
};
// Request. Payload: count and pids of all members, StreamUses (pack_uses()) whose home that node
// is. Reply: a FamilyDescription.
struct FamilyDescribe {
  static constexpr uint16_t kId = message_ids::kFamily + 3;
  uint8_t version = kVersion;
  uint8_t saves_files = 0;  // contents of files that may be written to
  uint64_t capture = 0, base = 0;
};
// Request: all go on; the snapshot stays.
struct FamilyThaw {
  static constexpr uint16_t kId = message_ids::kFamily + 4;
  uint8_t version = kVersion;
  uint64_t capture = 0;
};
// Notice: nothing of it is needed any more. Members that still stand go on.
struct FamilyDrop {
  static constexpr uint16_t kId = message_ids::kFamily + 5;
  uint8_t version = kVersion;
  uint64_t capture = 0;
};
// Request: memory that nodes share is at rest there, and what was sent before has been received.
// Payload: count of nodes, the nodes (NodeId), MemoryRows. Reply: for each of these what was
// written there since `base` (PageMarks::pack()).
struct FamilySettleMemory {
  static constexpr uint16_t kId = message_ids::kFamily + 6;
  uint8_t version = kVersion;
  uint64_t capture = 0, base = 0;
};
// Request: copy what is owned there of these, before it changes. Payload: for each what was written
// on all nodes. Reply: a byte, whether the node has pages of them.
struct FamilyCopyMemory {
  static constexpr uint16_t kId = message_ids::kFamily + 7;
  uint8_t version = kVersion;
  uint64_t capture = 0;
};
// Request: answered when all has been copied.
struct FamilyFinishCopies {
  static constexpr uint16_t kId = message_ids::kFamily + 8;
  uint8_t version = kVersion;
  uint64_t capture = 0;
};

// Request: large members are watched, so that their pages can be saved while they run. First while
// they stand, then, when they have gone on, with `protects`. Reply: what there is to be saved,
// bytes (uint64_t).
struct FamilyWatchLarge {
  static constexpr uint16_t kId = message_ids::kFamily + 9;
  uint8_t version = kVersion;
  uint8_t protects = 0;
  uint64_t capture = 0;
};

}  // namespace krg::family_messages
