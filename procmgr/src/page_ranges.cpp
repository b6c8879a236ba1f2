// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_ranges.h"

#include <iterator>

namespace krg {

PageIndex PageRanges::take(size_t count) {
  for (auto range = free_.begin(); range != free_.end(); ++range) {
    const auto [first, length] = *range;
    if (length < count) continue;
    free_.erase(range);
    if (length > count) free_.emplace(first + count, length - count);
    return {first};
  }
  const uint64_t first = end_;
  end_ += count;
  return {first};
}

void PageRanges::give_back(PageIndex page, size_t count) {
  if (count == 0) return;
  uint64_t first = page.value, length = count;
  auto next = free_.lower_bound(first);
  if (next != free_.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == first) {
      first = before->first;
      length += before->second;
      free_.erase(before);
    }
  }
  if (next != free_.end() && next->first == first + length) {
    length += next->second;
    free_.erase(next);
  }
  free_.emplace(first, length);
}

}  // namespace krg
