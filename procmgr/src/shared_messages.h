// The messages of the session's /dev/shm between a node and the node that keeps its names (the
// home), and what the home tells all nodes about a file's contents.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/stat.h>

#include <cstdint>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/session_fs.h"

namespace krg {

struct SharedAttributes {
  FileId id = 0;
  uint32_t mode = 0, uid = 0, gid = 0, links = 0;
  uint64_t size = 0;
  int64_t accessed_s = 0, accessed_ns = 0, modified_s = 0, modified_ns = 0, changed_s = 0,
          changed_ns = 0;
};
static_assert(sizeof(SharedAttributes) == 80);

enum class SharedOp : uint8_t {
  kAttributes,
  kLookup,
  kList,
  kReadLink,
  kOpen,
  kCreate,
  kMake,
  kLink,
  kUnlink,
  kRemoveDirectory,
  kRename,
  kChange,
  kTruncate,
  kExtend,  // to `size` bytes at least
  kAppend,  // by `size` bytes
  kCover,   // mappings reach `size` bytes, however long the file is
  kSpace,
  kAnonymous,  // makes a file of `size` bytes that has no name, which the asking node uses
  kHold,       // the asking node uses the file
  kMapFile,    // finds or makes the file that is the ordinary file `name`, of inode `other`, which
               // has `size` bytes; the asking node uses it
  kWriteBack,  // what was changed of such a file is to be in the ordinary file
};

// A request to the home. The payload (PackedWriter) is the name, the second name (a new name, a
// link's target), and the caller's supplementary groups. The answer is a SharedAttributes, or what
// the operation says: names, text, FsSpace.
struct SharedRequest {
  static constexpr uint16_t kId = message_ids::kSharedMemory;
  enum Changes : uint8_t {
    kMode = 1,
    kUid = 2,
    kGid = 4,
    kAccessed = 8,
    kModified = 16,
    kNow = 32
  };

  uint8_t version = 1;
  SharedOp op = SharedOp::kAttributes;
  uint8_t changes = 0;
  uint8_t by_descriptor = 0;
  int32_t flags = 0;
  uint32_t mode = 0, uid = 0, gid = 0;
  uint32_t new_uid = 0, new_gid = 0;
  uint32_t padding = 0;
  FileId file = 0, other = 0;
  uint64_t size = 0;
  int64_t accessed_s = 0, accessed_ns = 0, modified_s = 0, modified_ns = 0;
};
static_assert(sizeof(SharedRequest) == 88);

// To the home: one use of the file has ended, its contents were written, mappings use it.
struct SharedNotice {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 1;
  enum What : uint8_t { kReleased, kWritten, kHeld };
  uint8_t version = 1;
  uint8_t what = kReleased;
  uint8_t padding[6] = {};
  FileId file = 0;
};
static_assert(sizeof(SharedNotice) == 16);

// From the home to every node, as a request: the file has `size` bytes from now on, and a page set
// that reaches to `covered` at least. The payload of one that is an ordinary file is that one's
// path, and `inode` its number.
struct SharedResize {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 2;
  uint8_t version = 1;
  uint8_t padding[7] = {};
  FileId file = 0;
  uint64_t size = 0;
  uint64_t covered = 0;
  uint64_t inode = 0;
};
static_assert(sizeof(SharedResize) == 40);

// From the home to every node, as a request: what this node has brought from the ordinary file is
// to be in it.
struct SharedWriteBack {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 6;
  uint8_t version = 1;
  uint8_t padding[7] = {};
  FileId file = 0;
};
static_assert(sizeof(SharedWriteBack) == 16);

// To the home, as a request, for a checkpoint. Payload: the pids of members, of others that run,
// and the files that members have mapped or open, a count before each. The answer is
// pack_memories().
struct SaveShared {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 7;
  uint8_t version = 1;
};

// To the home, as a request: makes what the payload (pack_memories()) has, for a restart on the
// asking node, which uses each file once from the answer on: their numbers. `drops`: instead, files
// that were made so, by these numbers, lose their names.
struct RestoreShared {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 8;
  uint8_t version = 1;
  uint8_t drops = 0;
};

// From the home to every node: the file is gone everywhere.
struct SharedGone {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 3;
  uint8_t version = 1;
  uint8_t padding[7] = {};
  FileId file = 0;
};
static_assert(sizeof(SharedGone) == 16);

}  // namespace krg
