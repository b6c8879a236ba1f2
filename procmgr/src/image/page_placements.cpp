// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_placements.h"

#include <algorithm>
#include <iterator>

#include "page_list.h"

namespace krg {
namespace {

using Piece = PagePlacements::Piece;

RemoteAddr end_of(const Piece& piece) {
  return piece.at + piece.count * kMovedPageBytes;
}

// The part of the piece that lies in [start, end); count 0: none.
Piece part_of(const Piece& piece, RemoteAddr start, RemoteAddr end) {
  const uint64_t from = std::max(piece.at.value, start.value);
  const uint64_t to = std::min(end_of(piece).value, end.value);
  if (from >= to) return {};
  return {.at = {from},
          .first = piece.first + (from - piece.at.value) / kMovedPageBytes,
          .count = (to - from) / kMovedPageBytes};
}

// The last entry whose key is not above `key`, or end().
std::map<uint64_t, Piece>::const_iterator last_up_to(const std::map<uint64_t, Piece>& pieces,
                                                     uint64_t key) {
  auto above = pieces.upper_bound(key);
  return above == pieces.begin() ? pieces.end() : std::prev(above);
}

}  // namespace

void PagePlacements::add(const Piece& piece) {
  if (piece.count == 0) return;
  by_address_.emplace(piece.at.value, piece);
  by_page_.emplace(piece.first, piece);
}

void PagePlacements::remove(const Piece& piece) {
  by_address_.erase(piece.at.value);
  by_page_.erase(piece.first);
}

std::vector<Piece> PagePlacements::cut(RemoteAddr start, RemoteAddr end) {
  std::vector<Piece> touched, removed;
  auto at = last_up_to(by_address_, start.value);
  if (at == by_address_.end()) at = by_address_.begin();
  for (; at != by_address_.end() && at->first < end.value; ++at)
    if (part_of(at->second, start, end).count > 0) touched.push_back(at->second);
  for (const Piece& piece : touched) {
    remove(piece);
    add(part_of(piece, piece.at, start));
    add(part_of(piece, end, end_of(piece)));
    removed.push_back(part_of(piece, start, end));
  }
  return removed;
}

std::optional<uint64_t> PagePlacements::page_at(RemoteAddr address) const {
  auto found = last_up_to(by_address_, address.value);
  if (found == by_address_.end() || end_of(found->second) <= address) return std::nullopt;
  const Piece& piece = found->second;
  return piece.first + (address.value - piece.at.value) / kMovedPageBytes;
}

std::optional<Piece> PagePlacements::piece_from(uint64_t page) const {
  auto found = last_up_to(by_page_, page);
  if (found == by_page_.end()) return std::nullopt;
  const Piece& piece = found->second;
  if (page >= piece.first + piece.count) return std::nullopt;
  const uint64_t skipped = page - piece.first;
  return Piece{piece.at + skipped * kMovedPageBytes, page, piece.count - skipped};
}

}  // namespace krg
