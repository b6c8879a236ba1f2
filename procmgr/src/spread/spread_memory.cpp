// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_memory.h"

#include <algorithm>

#include "krg/shmem/page_set.h"

namespace krg {
PageIndex SpreadMemory::take_pages(uint64_t bytes) {
  return pages_.take(page_count(bytes));
}

void SpreadMemory::give_back(const SpreadRange& range) {
  pages_.give_back(range.first, page_count(range.bytes));
}

void SpreadMemory::map(const SpreadRange& range) {
  SpreadRange whole = range;
  whole.bytes = whole_pages(range.bytes);
  ranges_.emplace(range.start.value, whole);
}

// From then on a range begins at `at`, if one has it inside.
void SpreadMemory::cut(RemoteAddr at) {
  auto after = ranges_.upper_bound(at.value);
  if (after == ranges_.begin()) return;
  SpreadRange& lower = std::prev(after)->second;
  if (lower.start == at || lower.end() <= at) return;
  SpreadRange upper = lower;
  lower.bytes = at.value - lower.start.value;
  upper.start = at;
  upper.bytes -= lower.bytes;
  upper.first = PageIndex{lower.first.value + page_count(lower.bytes)};
  ranges_.emplace(at.value, upper);
}

std::vector<SpreadRange> SpreadMemory::unmap(RemoteAddr start, uint64_t bytes) {
  const RemoteAddr end = start + whole_pages(bytes);
  cut(start);
  cut(end);
  std::vector<SpreadRange> gone;
  auto at = ranges_.lower_bound(start.value);
  while (at != ranges_.end() && at->second.start < end) {
    gone.push_back(at->second);
    at = ranges_.erase(at);
  }
  return gone;
}

bool SpreadMemory::protect(RemoteAddr start, uint64_t bytes, uint32_t protection) {
  uint64_t found = 0;
  for (SpreadRange range : unmap(start, bytes)) {
    range.protection = protection;
    found += range.bytes;
    map(range);
  }
  return found == whole_pages(bytes);
}

std::vector<SpreadRange> SpreadMemory::in(RemoteAddr start, uint64_t bytes) const {
  const RemoteAddr end = start + whole_pages(bytes);
  SpreadMemory found;
  auto at = ranges_.upper_bound(start.value);
  if (at != ranges_.begin()) --at;
  for (; at != ranges_.end() && at->second.start < end; ++at)
    if (start < at->second.end()) found.ranges_.insert(*at);
  return found.unmap(start, bytes);
}

std::optional<SpreadRange> SpreadMemory::find(RemoteAddr address) const {
  auto after = ranges_.upper_bound(address.value);
  if (after == ranges_.begin()) return std::nullopt;
  const SpreadRange& range = std::prev(after)->second;
  if (range.end() <= address) return std::nullopt;
  return range;
}

std::optional<uint64_t> SpreadMemory::offset_of(RemoteAddr address, uint64_t bytes) const {
  auto range = find(address);
  if (!range || range->end() < address + bytes) return std::nullopt;
  return range->first.value * kPageBytes + (address.value - range->start.value);
}

std::vector<SpreadRange> SpreadMemory::all() const {
  std::vector<SpreadRange> all;
  for (const auto& [start, range] : ranges_) all.push_back(range);
  return all;
}

}  // namespace krg
