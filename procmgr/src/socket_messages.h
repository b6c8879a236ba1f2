// The messages of a relay that joins a socket at home with a body's socket elsewhere. Each
// direction has one piece under way, answered when it has arrived for good: order and back
// pressure. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "stream_messages.h"

namespace krg {

// The most that one piece carries; a packet (SOCK_SEQPACKET) must fit.
inline constexpr size_t kMaxSocketPieceBytes = 256 * 1024;

// Request to the home: the relay `relay` of the asking node is ready. Reply: empty.
struct SocketAttach {
  static constexpr uint16_t kId = message_ids::kDescriptors + 16;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
  uint64_t relay = 0;
};
static_assert(sizeof(SocketAttach) == 24);

// Request to the body's node: what came at home, or its end. Reply: empty, once the body has
// consumed all of it; EPIPE when it never will.
struct SocketToBody {
  static constexpr uint16_t kId = message_ids::kDescriptors + 17;
  uint8_t version = 1;
  uint8_t is_end = 0;
  uint8_t unused[6] = {};
  uint64_t relay = 0;
};
static_assert(sizeof(SocketToBody) == 16);

// Request to the home: what the body wrote, or its shutdown(SHUT_WR). Reply: empty, once the
// socket has taken all of it; EPIPE when it never will.
struct SocketToHome {
  static constexpr uint16_t kId = message_ids::kDescriptors + 18;
  uint8_t version = 1;
  uint8_t is_end = 0;
  uint8_t unused[6] = {};
  HomeId home;
};
static_assert(sizeof(SocketToHome) == 16);

}  // namespace krg
