// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_list.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "krg/runtime/check.h"

namespace krg {

PageList::PageList(std::vector<PageRange> ranges) : ranges_(std::move(ranges)) {
  const auto later = std::ranges::stable_partition(
      ranges_, [](const PageRange& range) { return range.comes_first; });
  early_ranges_ = static_cast<size_t>(later.begin() - ranges_.begin());
  for (const PageRange& range : ranges_) {
    firsts_.push_back(count_);
    count_ += range.bytes / kMovedPageBytes;
    if (range.comes_first) first_later_ = count_;
  }
}

size_t PageList::range_of(uint64_t page) const {
  check(page < count_, "a page of the list");
  return static_cast<size_t>(std::ranges::upper_bound(firsts_, page) - firsts_.begin()) - 1;
}

RemoteAddr PageList::address_of(uint64_t page) const {
  const size_t range = range_of(page);
  return ranges_[range].start + (page - firsts_[range]) * kMovedPageBytes;
}

std::optional<uint64_t> PageList::page_at(RemoteAddr address) const {
  const auto later = ranges_.begin() + static_cast<ptrdiff_t>(early_ranges_);
  for (auto [begin, end] : {std::pair(ranges_.begin(), later), std::pair(later, ranges_.end())}) {
    auto range = std::upper_bound(begin, end, address.value, [](uint64_t at, const PageRange& r) {
      return at < r.start.value;
    });
    if (range == begin || address.value >= (--range)->end().value) continue;
    return firsts_[static_cast<size_t>(range - ranges_.begin())] +
           (address.value - range->start.value) / kMovedPageBytes;
  }
  return std::nullopt;
}

uint64_t PageList::run_from(uint64_t page) const {
  const size_t range = range_of(page);
  return ranges_[range].bytes / kMovedPageBytes - (page - firsts_[range]);
}

PageBits::PageBits(uint64_t size, bool value)
    : words_((size + 63) / 64, value ? ~uint64_t{0} : 0), size_(size), set_(value ? size : 0) {
  // Bits behind the end are never set: next() need not look for it.
  if (value && size % 64 != 0) words_.back() = (uint64_t{1} << (size % 64)) - 1;
}

void PageBits::clear(uint64_t bit) {
  if (!test(bit)) return;
  words_[bit / 64] &= ~(uint64_t{1} << (bit % 64));
  --set_;
}

void PageBits::set(uint64_t bit) {
  if (test(bit)) return;
  words_[bit / 64] |= uint64_t{1} << (bit % 64);
  ++set_;
}

uint64_t PageBits::next(uint64_t from) const {
  if (from >= size_) return size_;
  uint64_t word = words_[from / 64] & (~uint64_t{0} << (from % 64));
  for (uint64_t i = from / 64;;) {
    if (word != 0) return i * 64 + static_cast<unsigned>(std::countr_zero(word));
    if (++i == words_.size()) return size_;
    word = words_[i];
  }
}

uint64_t PageBits::run(uint64_t from, uint64_t most) const {
  uint64_t length = 0;
  while (length < most && from + length < size_ && test(from + length)) ++length;
  return length;
}

}  // namespace krg
