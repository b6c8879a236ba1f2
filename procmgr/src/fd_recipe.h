// FdRecipe: how a descriptor that was exported from one node is made on another; the bytes inside
// ExportedFd::recipe. Threads: a value. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "krg/runtime/result.h"
#include "stream_messages.h"

namespace krg {

enum class FdKind : uint8_t {
  kDevice,  // one of /dev/null and its like: opened by path
  kPath,    // opened by path, unchecked: files of procfs and sysfs, which each node has its own of
  kFile,    // a regular file that may be had by path: else by stream
  kDirectory,  // a directory or O_PATH descriptor: by path or not at all
  kStream,     // I/O at home
  kSocket,  // joined by a relay; one that had a relay: the "path" is what that had (CarriedSocket)
  kTerminal,   // mirrored by a pty
  kShared,     // a file of the session's /dev/shm: by path, or by its FileId (identity.inode)
  kEvent,      // made anew: of EventKind `detail`, the "path" being its description (event_fds.h)
  kQueue,      // of the session's /dev/mqueue: by its FileId (identity.inode)
  kListener,   // a socket that listens, joined by a relay: of the "path" ListenerShape; `detail`:
               // others have it
  kInotify,    // I/O at home, where its watches are (inotify_calls.h)
  kPidfd,      // polled at home: of process `detail`, 0: one that has ended (pidfd_calls.h)
  kSame,       // the description of another descriptor of the process, number `detail`
  kMaster,     // of a pseudo-terminal: I/O at home
  kNewSocket,  // neither bound nor connected: made anew, the "path" is its NewSocket
};

// What tells whether a path leads to the same file. `filesystem` is 0 where only the inode can say.
struct FileIdentity {
  uint64_t inode = 0;
  int64_t size = 0;
  int64_t mtime_s = 0;
  int64_t mtime_ns = 0;
  uint64_t filesystem = 0;  // the same on nodes that share the file system coherently
};

// Of a connected socket: a unix one, which passes descriptors.
inline constexpr uint32_t kPassesFds = 1u << 16;

// Where a stream's position is, and whether what is read may be kept. kShared: at home, and the
// process may seek (shared_offset.h).
enum class Offsets : uint8_t { kAtHome, kOwn, kOwnUncached, kShared };

// The fixed part; `path` follows it.
struct FdRecipe {
  uint8_t version = 7;
  FdKind kind = FdKind::kDevice;
  Offsets offsets = Offsets::kAtHome;
  uint8_t pollable = 1;
  int32_t flags = 0;  // as F_GETFL said
  NodeId home;
  NodeId exporter;      // who keeps `guard`
  uint32_t detail = 0;  // of a socket: its type, and kPassesFds
  HomeId id;
  HomeId guard;
  // kListener, kSocket: its number at the exporter, when it stands for another there, else 0.
  int64_t offset = 0;
  FileIdentity identity;
  int64_t known_offset = 0;  // kShared: the home's, as far as the exporter knows
};
static_assert(sizeof(FdRecipe) == 88);

std::string encode_recipe(const FdRecipe& recipe, std::string_view path);
struct DecodedRecipe {
  FdRecipe fixed;
  std::string path;
};
// Errors: EPROTO for another version.
Result<DecodedRecipe> decode_recipe(std::string_view bytes);

}  // namespace krg
