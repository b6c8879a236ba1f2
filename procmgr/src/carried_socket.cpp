// SPDX-License-Identifier: GPL-2.0-or-later
#include "carried_socket.h"

#include "packed_bytes.h"

namespace krg {
namespace {

void put(PackedWriter& out, const std::vector<CarriedPiece>& pieces) {
  out.put(static_cast<uint32_t>(pieces.size()));
  for (const CarriedPiece& piece : pieces) out.put_string(piece.data).put_string(piece.passed);
}

std::vector<CarriedPiece> get_pieces(PackedReader& in) {
  std::vector<CarriedPiece> pieces;
  for (auto left = in.get<uint32_t>(); left > 0 && in.ok(); --left) {
    const std::string_view data = in.get_string(), passed = in.get_string();
    pieces.push_back({std::string(data), std::string(passed)});
  }
  return pieces;
}

}  // namespace

size_t CarriedSocket::bytes_that_came() const {
  size_t bytes = 0;
  for (const CarriedPiece& piece : came) bytes += piece.data.size();
  return bytes;
}

std::string CarriedSocket::encode() const {
  PackedWriter out;
  out.put(state);
  put(out, came);
  put(out, wrote);
  return out.take();
}

Result<CarriedSocket> CarriedSocket::decode(NodeId home, HomeId id, std::string_view bytes) {
  PackedReader in(bytes);
  CarriedSocket carried{home, id, in.get<State>(), {}, {}};
  carried.came = get_pieces(in);
  carried.wrote = get_pieces(in);
  if (!in.ok() || !in.at_end()) return errno_error("recipe of a socket", EPROTO);
  return carried;
}

}  // namespace krg
