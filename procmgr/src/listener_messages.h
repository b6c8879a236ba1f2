// The messages between a listening socket at home and the one that stands for it where a process
// accepts. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/socket.h>

#include "act_as.h"
#include "stream_messages.h"

namespace krg {

// What makes a socket that listens like another: the payload of its recipe.
struct ListenerShape {
  int32_t domain = 0;
  int32_t only_v6 = 0;
  uint32_t address_bytes = 0;
  uint32_t unused = 0;
  sockaddr_storage address{};
};
static_assert(sizeof(ListenerShape) == 144);

// Where a process accepts: a socket of that node that stands for the one at home.
struct ListenerPlace {
  NodeId node;
  uint32_t unused = 0;
  uint64_t number = 0;
  bool operator==(const ListenerPlace&) const = default;
};
static_assert(sizeof(ListenerPlace) == 16);

// Request to the home: connections go to `listener` of the asking node from now on. Reply: empty.
struct ListenerAttach {
  static constexpr uint16_t kId = message_ids::kDescriptors + 19;
  uint8_t version = 2;
  uint8_t shares = 0;  // it is one more process that accepts, of a place that others stay at
  uint8_t unused[6] = {};
  HomeId home;
  uint64_t listener = 0;
  ListenerPlace left;  // which it replaces, whose process has moved; number 0: none
};
static_assert(sizeof(ListenerAttach) == 40);

// Request to where a process accepts: a connection that came at home. Reply: empty, once it waits
// there to be accepted; EAGAIN: not now; EPIPE: nobody listens there any more. After an error the
// home has it still.
struct ListenerOffer {
  static constexpr uint16_t kId = message_ids::kDescriptors + 20;
  uint8_t version = 2;
  uint8_t has_peer = 0;  // it is a unix socket, to which that user has connected
  uint8_t unused[6] = {};
  uint64_t listener = 0;
  HomeId connection;
  FileUser peer;
};
static_assert(sizeof(ListenerOffer) == 32);

// Notice to the home: nothing is to be offered to `listener` of the sending node until its next
// ListenerAttach.
struct ListenerPause {
  static constexpr uint16_t kId = message_ids::kDescriptors + 21;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
  uint64_t listener = 0;
};
static_assert(sizeof(ListenerPause) == 24);

// Notice to the home: a connection that nobody has accepted yet, to be offered again; the payload
// is what came by it so far. Drops the reference of the sending node.
struct ListenerReturn {
  static constexpr uint16_t kId = message_ids::kDescriptors + 22;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
  HomeId connection;
};
static_assert(sizeof(ListenerReturn) == 24);

// Request to where a process accepts, one of several that may: whether it would accept a connection
// now. Reply: empty; EAGAIN: not now; EPIPE: nobody listens there any more.
struct ListenerAsk {
  static constexpr uint16_t kId = message_ids::kDescriptors + 27;
  uint8_t version = 1;
  uint8_t is_urgent = 0;  // nobody has said so for long: one that has accepted before will do
  uint8_t unused[6] = {};
  uint64_t listener = 0;
};
static_assert(sizeof(ListenerAsk) == 16);

// Request: to listen at a loopback address and port as a process of the asking node does, and to
// offer there, to `listener`, what connects. Reply: the HomeId of that, which the asking node holds
// until a StreamClose. Errors: EALREADY: the nodes have one network; what bind(2) says.
struct LoopbackListen {
  static constexpr uint16_t kId = message_ids::kDescriptors + 28;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t network = 0;  // inode number of the asking node's network namespace
  uint64_t listener = 0;
  ListenerShape shape;
};
static_assert(sizeof(LoopbackListen) == 168);

}  // namespace krg
