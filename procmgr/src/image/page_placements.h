// PagePlacements: where in an address space the pages of a move belong, while the process that they
// belong to already moves and drops its mappings. Pages are numbered (page_list.h).
//
// Pure. Threads: any, one at a time. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "krg/runtime/types.h"

namespace krg {

class PagePlacements {
 public:
  // Pages in a row, at addresses in a row.
  struct Piece {
    RemoteAddr at;
    uint64_t first = 0, count = 0;
    bool operator==(const Piece&) const = default;
  };

  // REQUIRES: neither its pages nor its addresses have a place yet.
  void add(const Piece& piece);
  // Takes out what lies in [start, end), and returns it.
  std::vector<Piece> cut(RemoteAddr start, RemoteAddr end);
  std::optional<uint64_t> page_at(RemoteAddr address) const;
  // Where the page belongs, with what follows it in a row; none: nowhere any more.
  std::optional<Piece> piece_from(uint64_t page) const;
  bool empty() const { return by_address_.empty(); }

 private:
  void remove(const Piece& piece);

  std::map<uint64_t, Piece> by_address_, by_page_;
};

}  // namespace krg
