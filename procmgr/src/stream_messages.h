// The messages between a stream's home and the nodes that imported it. Ids:
// message_ids::kDescriptors and up; sizes are part of the protocol.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/stat.h>

#include <cstdint>

#include "flock_table.h"
#include "krg/procmgr/lock_holders.h"
#include "krg/procmgr/node_context.h"

namespace krg {

// Names a description at its home; never reused while the home runs.
struct HomeId {
  uint64_t value = 0;
  auto operator<=>(const HomeId&) const = default;
};

// Offset of a read or write that goes on where the description stands.
inline constexpr int64_t kAtPosition = -1;

// Request. Reply: the bytes; none is end of file.
struct StreamRead {
  static constexpr uint16_t kId = message_ids::kDescriptors;
  uint8_t version = 2;
  uint8_t nonblocking = 0;
  // Where the description stands, which the reply begins with (int64_t). `offset`: where it is to
  // be set to before that, or kAtPosition.
  uint8_t at_shared_offset = 0;
  uint8_t unused = 0;
  uint32_t size = 0;
  HomeId home;
  uint64_t operation = 0;  // for StreamCancel
  int64_t offset = kAtPosition;
};
static_assert(sizeof(StreamRead) == 32);

// Request, the payload is what to write. Reply: the number of bytes written as uint64_t.
struct StreamWrite {
  static constexpr uint16_t kId = message_ids::kDescriptors + 1;
  uint8_t version = 2;
  uint8_t nonblocking = 0;
  uint16_t unused[3] = {};
  HomeId home;
  uint64_t operation = 0;
  int64_t offset = kAtPosition;
};
static_assert(sizeof(StreamWrite) == 32);

// Notice: the caller of a read or write got a signal; it is to be answered soon.
struct StreamCancel {
  static constexpr uint16_t kId = message_ids::kDescriptors + 2;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
  uint64_t operation = 0;
};
static_assert(sizeof(StreamCancel) == 24);

// Request. Reply: the poll(2) events of now as uint32_t. With `wake`, a StreamReady follows when
// they may have changed.
struct StreamPoll {
  static constexpr uint16_t kId = message_ids::kDescriptors + 3;
  uint8_t version = 1;
  uint8_t wake = 0;
  uint16_t unused[3] = {};
  HomeId home;
  uint64_t handle = 0;  // for StreamReady
};
static_assert(sizeof(StreamPoll) == 24);

// Notice from the home.
struct StreamReady {
  static constexpr uint16_t kId = message_ids::kDescriptors + 4;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t handle = 0;
};
static_assert(sizeof(StreamReady) == 16);

// Request: ioctl(2) on a terminal (terminal_ioctls.h); the payload is what the argument points to.
// Reply: what it points to afterwards.
struct StreamIoctl {
  static constexpr uint16_t kId = message_ids::kDescriptors + 30;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  uint32_t command = 0;
  HomeId home;
  uint64_t argument = 0;  // a number
};
static_assert(sizeof(StreamIoctl) == 24);

// Request: attributes. Reply: a struct stat. With a size of 0 or more the file is cut to it first.
struct StreamStat {
  static constexpr uint16_t kId = message_ids::kDescriptors + 5;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
  int64_t truncate = -1;
};
static_assert(sizeof(StreamStat) == 24);

// Request: opens what the description names anew, as an open of /dev/fd/N does, with one reference
// for the asking node. Reply: the new HomeId.
struct StreamReopen {
  static constexpr uint16_t kId = message_ids::kDescriptors + 6;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t flags = 0;
  HomeId home;
};
static_assert(sizeof(StreamReopen) == 16);

// Request: adds a reference for the asking node. Reply: empty.
struct StreamAcquire {
  static constexpr uint16_t kId = message_ids::kDescriptors + 7;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
};
static_assert(sizeof(StreamAcquire) == 16);

// Notice: drops a reference of the sending node.
struct StreamClose {
  static constexpr uint16_t kId = message_ids::kDescriptors + 8;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
};
static_assert(sizeof(StreamClose) == 16);

// Notice to the exporting node: the export has been imported, or never will be.
struct StreamExportDone {
  static constexpr uint16_t kId = message_ids::kDescriptors + 9;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId guard;
};
static_assert(sizeof(StreamExportDone) == 16);

// Request: a body that had the file reopened has ended; its offset becomes the description's,
// unless somebody else moved that meanwhile. Drops the reference. Reply: empty.
struct StreamOffsetBack {
  static constexpr uint16_t kId = message_ids::kDescriptors + 10;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
  int64_t lent = 0;      // the offset when it was exported
  int64_t returned = 0;  // the offset when the body ended
};
static_assert(sizeof(StreamOffsetBack) == 32);

// Notice: a process has set the offset that it shares, unless others have moved it meanwhile.
struct StreamSeek {
  static constexpr uint16_t kId = message_ids::kDescriptors + 27;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
  int64_t from = 0;
  int64_t to = 0;
};
static_assert(sizeof(StreamSeek) == 32);

// Notice to a home that exported the description itself: a StreamAcquire and the StreamExportDone
// in one.
struct StreamTaken {
  static constexpr uint16_t kId = message_ids::kDescriptors + 11;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
  HomeId guard;
};
static_assert(sizeof(StreamTaken) == 24);

// Request: flock(2) of the description. Reply: empty; EWOULDBLOCK, or EINTR for a StreamCancel.
struct StreamFlock {
  static constexpr uint16_t kId = message_ids::kDescriptors + 12;
  uint8_t version = 1;
  FlockRequest::What what = FlockRequest::What::kUnlock;
  uint8_t waits = 0;
  uint8_t unused[5] = {};
  HomeId home;
  uint64_t operation = 0;  // for StreamCancel
};
static_assert(sizeof(StreamFlock) == 24);

// Request: a lock by fcntl(2) of the file. Reply: a RecordLock, what F_GETLK tells; EAGAIN, or
// EINTR for a StreamCancel.
struct StreamRecordLock {
  static constexpr uint16_t kId = message_ids::kDescriptors + 13;
  uint8_t version = 1;
  uint8_t of_description = 0;  // F_OFD_SETLK and its like: not of the process `owner`
  uint8_t waits = 0;
  uint8_t unused = 0;
  int32_t command = F_GETLK;  // or F_SETLK
  int32_t owner = 0;
  int32_t unused_too = 0;
  HomeId home;
  uint64_t operation = 0;  // for StreamCancel
  RecordLock lock;
};
static_assert(sizeof(StreamRecordLock) == 56);

// Notice: a process has closed the file: its locks of it by fcntl(2) end.
struct StreamLetGo {
  static constexpr uint16_t kId = message_ids::kDescriptors + 14;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t owner = 0;
  HomeId home;
};
static_assert(sizeof(StreamLetGo) == 16);

// Request to where a process lives that has locks at the asking node. Reply: empty, when it has
// ended.
struct LockOwnerEnds {
  static constexpr uint16_t kId = message_ids::kDescriptors + 15;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t owner = 0;
};
static_assert(sizeof(LockOwnerEnds) == 8);

}  // namespace krg
