// What a client and its krgd say to each other (client.h, kddm_service.h): SOCK_SEQPACKET packets
// on a socket pair of their own, which the control command `kddm.connect` hands out together with
// the memory of the client's pins. Private to shmem: both ends are of one release, the version says
// so.
//
//   client -> krgd  ClientRequest, then a name (kName, kJoinBarrier) or bytes (kSet)
//   krgd -> client  ClientReply to each request but puts and kLeaveBarrier, in any order; then an
//                   error's text, or KddmStatistics
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>

namespace krg::client_wire {

inline constexpr uint8_t kVersion = 3;
inline constexpr const char* kConnectCommand = "kddm.connect";
// Bytes of an object that a set() sends in its packet; larger ones go through a pin.
inline constexpr size_t kMaxInlineBytes = 32 * 1024;
inline constexpr size_t kMaxClientPacket = kMaxInlineBytes + 256;

enum class Op : uint8_t {
  kName,     // verb (SetNames::Verb) in `flag`, object_bytes in `object`
  kGet,      // flag: make the object when there is none
  kGrab,     // likewise
  kTryGet,   // at once or EAGAIN
  kTryGrab,  // likewise
  kPut,      // `pin`; no reply. flag: the pin's bytes are the object's now
  kSet,      // the object's new bytes follow
  kRemove,
  kFlush,
  kSync,
  kStatistics,
  kJoinBarrier,   // its members' number in `object`; the reply has the member's id in `pin`
  kWaitBarrier,   // the member in `pin`
  kLeaveBarrier,  // likewise; no reply
  kGetRange,      // as kGet, from `object` on as many as `pin` says; one reply, one pin
  kGrabRange,     // likewise
};

struct ClientRequest {
  uint8_t version = kVersion;
  Op op = Op::kSync;
  uint8_t flag = 0;
  uint8_t reserved[5] = {};
  uint64_t call = 0;
  uint64_t set = 0;
  uint64_t object = 0;
  uint64_t pin = 0;
};
static_assert(sizeof(ClientRequest) == 40);

struct ClientReply {
  uint8_t version = kVersion;
  uint8_t reserved[3] = {};
  int32_t error = 0;  // an errno value, or 0
  uint64_t call = 0;
  uint64_t pin = 0;
  uint64_t offset = 0;        // of the pinned bytes in the shared memory
  uint64_t set = 0;           // kName
  uint64_t object_bytes = 0;  // kName
};
static_assert(sizeof(ClientReply) == 48);

}  // namespace krg::client_wire
