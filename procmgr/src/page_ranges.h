// PageRanges: which pages of a page set are in use by mappings. First fit; grows at the end. Pure.
// Owned by one program's set. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "krg/shmem/ids.h"

namespace krg {

class PageRanges {
 public:
  // Where `count` pages in a row are free; they are not any more.
  PageIndex take(size_t count);
  // REQUIRES: they were taken.
  void give_back(PageIndex first, size_t count);
  // All ranges that were ever taken end here at the latest.
  size_t end() const { return end_; }

 private:
  std::map<uint64_t, uint64_t> free_;  // first → count; never two that touch
  uint64_t end_ = 0;
};

}  // namespace krg
