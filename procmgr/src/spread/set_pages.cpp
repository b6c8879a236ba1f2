// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/set_pages.h"

#include <algorithm>

#include "krg/shmem/page_set.h"

namespace krg {

uint64_t bytes_of(const std::vector<SpreadRange>& ranges) {
  uint64_t bytes = 0;
  for (const SpreadRange& range : ranges) bytes += range.bytes;
  return bytes;
}

Result<SetPages> SetPages::make(uint64_t most) {
  auto bytes = PageBuffer::make(most);
  if (!bytes) return bytes.error();
  SetPages made;
  made.bytes_ = std::move(*bytes);
  made.room_ = most;
  return made;
}

Status SetPages::add(RemoteAddr at, std::span<const std::byte> page) {
  uint64_t offset = used_;
  if (!free_.empty()) {
    offset = free_.back();
    free_.pop_back();
  } else if (used_ + kPageBytes <= room_) {
    used_ += kPageBytes;
  } else {
    return errno_error("pages of several nodes", ENOSPC);
  }
  std::copy(page.begin(), page.end(), bytes_.get() + offset);
  places_.emplace_back(at.value, offset);
  return {};
}

void SetPages::keep(const std::vector<SpreadRange>& ranges) {
  std::sort(places_.begin(), places_.end());
  auto range = ranges.begin();
  std::erase_if(places_, [&](const Place& place) {
    while (range != ranges.end() && range->end().value <= place.first) ++range;
    const bool is_kept = range != ranges.end() && range->start.value <= place.first;
    if (!is_kept) free_.push_back(place.second);
    return !is_kept;
  });
  std::sort(free_.rbegin(), free_.rend());
}

uint64_t SetPages::bytes() const {
  return places_.size() * kPageBytes;
}

CopiedPages SetPages::sorted() {
  std::sort(places_.begin(), places_.end());
  CopiedPages all;
  all.bytes = std::move(bytes_);
  for (const auto& [address, offset] : std::exchange(places_, {})) {
    const bool goes_on = !all.ranges.empty() && all.ranges.back().end().value == address &&
                         all.offsets.back() + all.ranges.back().bytes == offset;
    if (goes_on) {
      all.ranges.back().bytes += kPageBytes;
      continue;
    }
    all.ranges.push_back({.start = {address}, .bytes = kPageBytes});
    all.offsets.push_back(offset);
  }
  return all;
}

}  // namespace krg
