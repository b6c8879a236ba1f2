// The messages of a relay that joins a socket at home with a body's socket elsewhere. Each
// direction has one piece under way, answered when it has arrived for good: order and back
// pressure. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "stream_messages.h"

namespace krg {

// The most that one piece carries; a packet (SOCK_SEQPACKET, SOCK_DGRAM) must fit.
inline constexpr size_t kMaxSocketPieceBytes = 256 * 1024;

// Request to the home: the relay `relay` of the asking node is ready. Reply: empty; to one that
// takes over, when its predecessor has left; ECANCELED: that goes on.
struct SocketAttach {
  enum How : uint8_t { kNew, kResumes, kTakesOver };
  static constexpr uint16_t kId = message_ids::kDescriptors + 16;
  uint8_t version = 2;
  How how = kNew;
  uint8_t unused[6] = {};
  HomeId home;
  uint64_t relay = 0;
};
static_assert(sizeof(SocketAttach) == 24);

// Request to the body's node: what came at home, or its end. Reply: empty, once the body has
// consumed all of it; of one that others have, too, how many bytes it has left (uint64_t) when it
// has closed it before; EPIPE when it never will.
struct SocketToBody {
  static constexpr uint16_t kId = message_ids::kDescriptors + 17;
  uint8_t version = 3;
  uint8_t is_end = 0;
  uint8_t is_shared = 0;  // a stream that others may have, too
  uint8_t unused[1] = {};
  uint32_t passed_bytes = 0;  // behind the data: descriptors that came with its first byte
  uint64_t relay = 0;
};
static_assert(sizeof(SocketToBody) == 16);

// Request to the home: what the body wrote, or its shutdown(SHUT_WR). Reply: empty, once the
// socket has taken all of it; EPIPE when it never will.
struct SocketToHome {
  static constexpr uint16_t kId = message_ids::kDescriptors + 18;
  uint8_t version = 2;
  uint8_t is_end = 0;
  uint8_t unused[2] = {};
  uint32_t passed_bytes = 0;  // as in SocketToBody
  HomeId home;
};
static_assert(sizeof(SocketToHome) == 16);

// Request to the home: nothing is to be sent until the next SocketAttach: the body of `relay` is
// moving. Reply: empty; what was sent before has arrived by then.
struct SocketPause {
  static constexpr uint16_t kId = message_ids::kDescriptors + 25;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
  uint64_t relay = 0;
};
static_assert(sizeof(SocketPause) == 24);

// Request to a body's node: whether a thread there waits for what comes by that relay, which
// processes of other nodes, or of the home, might read as well. Reply: empty; EAGAIN: not now.
struct SocketAsk {
  static constexpr uint16_t kId = message_ids::kDescriptors + 29;
  uint8_t version = 1;
  uint8_t is_urgent = 0;  // nobody has said so for long: one that has read before will do
  uint8_t unused[6] = {};
  uint64_t relay = 0;
};
static_assert(sizeof(SocketAsk) == 16);

// Notice to the home: the body of a paused relay has moved; who takes over has what was on its way.
struct SocketLeave {
  static constexpr uint16_t kId = message_ids::kDescriptors + 26;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
  uint64_t relay = 0;
};
static_assert(sizeof(SocketLeave) == 24);

}  // namespace krg
