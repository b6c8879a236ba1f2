// What SocketRelays knows of a relay. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>

#include "socket_relays.h"

namespace krg {

// Bytes of a stream, or a packet, on its way to the body.
struct SocketRelays::Piece {
  std::string data;
  std::vector<UniqueFd> fds = {};  // go with the first byte
  uint64_t unpacking = 0;          // they are still to be made: it waits
};

struct SocketRelays::Relay {
  uint64_t number = 0;
  pid_t body = 0;
  NodeId home;
  HomeId id;
  UniqueFd local;            // our end
  ino_t end = 0;             // the body's; 0: it is joined to a socket of the body's own
  SocketUsers users;         // of that
  bool tells_unread = true;  // a unix socket: what the body has not read yet
  int type = SOCK_STREAM;
  bool datagrams = false;                 // of that type
  bool body_closed = false;               // its end, of datagrams
  bool paused = false;                    // its body is moving
  bool waits = false;                     // for the relay that it takes over from
  bool home_ended = false;                // nothing more comes
  bool told_end = false;                  // the body, after what came
  bool sending = false;                   // a piece is under way home
  bool ended = false;                     // the body has shut its writing down
  bool passes_fds = false;                // what the body passes can be taken home
  uint64_t arrived = 0;                   // bytes that have come from home
  std::deque<Piece> to_body;              // not yet in the body's socket
  std::deque<CarriedPiece> to_home;       // before what our end has
  std::vector<std::string> carried;       // what its pieces pass, packed for who takes over
  std::optional<Messenger::Reply> piece;  // answered when the body has consumed it
  // A copy of the body's, while a piece is under way that others may want (socket_leftovers.cpp).
  UniqueFd kept_end;
  int end_number = -1;                                 // the body's end had it last
  std::chrono::steady_clock::time_point kept_since{};  // of a body that is being made
  std::vector<std::function<void()>> drained;
  std::vector<std::shared_ptr<void>> unpacked;  // given up when nothing is unpacking
  EventLoop::Watch watch;

  // Asks the kernel whether the body's end, of datagrams, has been closed.
  bool looks_closed();
  // A socket pair's, whose end is a body's.
  bool is_joined_stream() const { return end != 0 && tells_unread && type == SOCK_STREAM; }
  bool is_unpacking() const {
    return std::any_of(to_body.begin(), to_body.end(), [](const Piece& p) { return p.unpacking; });
  }
};

}  // namespace krg
