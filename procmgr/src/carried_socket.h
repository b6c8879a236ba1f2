// CarriedSocket: what the relay of a socket had when its body moved on (SocketRelays): the end of
// its recipe. Threads: a value. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/result.h"
#include "stream_messages.h"

namespace krg {

// Bytes of a stream, or a packet; and what is passed with the first byte, packed (FdPassing).
struct CarriedPiece {
  std::string data;
  std::string passed;
};

struct CarriedSocket {
  NodeId home;
  HomeId id;
  // The fixed part.
  struct State {
    uint64_t arrived = 0;     // bytes from the home, all in all
    uint8_t home_ended = 0;   // after what came
    uint8_t body_ended = 0;   // shutdown(SHUT_WR) after what it wrote
    uint8_t end_is_sent = 0;  // home knows that
    uint8_t unused[5] = {};
  } state;
  std::vector<CarriedPiece> came;   // what the body has not read yet
  std::vector<CarriedPiece> wrote;  // what the home has not got

  size_t bytes_that_came() const;
  // What a recipe has as its "path".
  std::string encode() const;
  // Errors: EPROTO.
  static Result<CarriedSocket> decode(NodeId home, HomeId id, std::string_view bytes);
};
static_assert(sizeof(CarriedSocket::State) == 16);

}  // namespace krg
