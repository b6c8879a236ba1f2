// PageList: the pages of a list of ranges, numbered in the order in which they are sent: first
// those that have to be there before the process runs (PageRange::comes_first), then the others,
// each by address. Both ends of a move number the same list alike, so messages speak of numbers.
// PageBits: one bit for each of them.
//
// Pure. Threads: any, one at a time. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "krg/procmgr/page_range.h"

namespace krg {

inline constexpr uint64_t kMovedPageBytes = 4096;

inline bool is_zero_page(const std::byte* page) {
  return page[0] == std::byte{0} && std::memcmp(page, page + 1, kMovedPageBytes - 1) == 0;
}

class PageList {
 public:
  explicit PageList(std::vector<PageRange> ranges);

  uint64_t count() const { return count_; }
  // Pages below this number have to be there before the process runs.
  uint64_t first_later() const { return first_later_; }
  // REQUIRES: page < count().
  RemoteAddr address_of(uint64_t page) const;
  // REQUIRES: the ranges were sorted by address.
  std::optional<uint64_t> page_at(RemoteAddr address) const;
  // How many pages from this one on, itself included, lie in a row in its range.
  uint64_t run_from(uint64_t page) const;
  // In sending order; the n-th begins with page first_of(n).
  const std::vector<PageRange>& ranges() const { return ranges_; }
  uint64_t first_of(size_t range) const { return firsts_[range]; }

 private:
  size_t range_of(uint64_t page) const;

  std::vector<PageRange> ranges_;
  size_t early_ranges_ = 0;  // those that come first
  std::vector<uint64_t> firsts_;
  uint64_t count_ = 0, first_later_ = 0;
};

class PageBits {
 public:
  PageBits(uint64_t size, bool value);

  uint64_t size() const { return size_; }
  bool any() const { return set_ != 0; }
  uint64_t set_count() const { return set_; }
  bool test(uint64_t bit) const { return (words_[bit / 64] >> (bit % 64)) & 1; }
  void clear(uint64_t bit);
  void set(uint64_t bit);
  // The first bit at or behind `from` that is set; size(): none.
  uint64_t next(uint64_t from) const;
  // How many bits in a row from `from` on are set, `most` at the most.
  uint64_t run(uint64_t from, uint64_t most) const;

 private:
  std::vector<uint64_t> words_;
  uint64_t size_, set_;
};

}  // namespace krg
