// PageDigests: what tells the pages of one capture from those of the next, where nothing tells
// which were written: of memory that processes share, each of which may have ended since.
//
// Two different contents count as the same once in 2^128.
//
// Threads: any, one at a time. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "krg/procmgr/page_range.h"

namespace krg {

struct CopiedPages;

class PageDigests {
 public:
  // Becomes that of `pages`. Their ranges, those clean that `before` has with the same contents at
  // the same place; null: there was none.
  std::vector<PageRange> take(const CopiedPages& pages, const PageDigests* before);

 private:
  struct Page {
    uint64_t address = 0;
    std::array<uint64_t, 2> digest{};
    bool operator==(const Page&) const = default;
  };
  std::vector<Page> pages_;  // by address
};

}  // namespace krg
