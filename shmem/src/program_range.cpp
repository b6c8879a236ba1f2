// SPDX-License-Identifier: GPL-2.0-or-later
#include "program_range.h"

#include <algorithm>

namespace krg {
namespace {

ProgramRange part(const ProgramRange& whole, RemoteAddr start, RemoteAddr end) {
  const auto from = whole.mapped.begin() + static_cast<ptrdiff_t>(whole.index_of(start));
  const auto to = whole.mapped.begin() + static_cast<ptrdiff_t>(whole.index_of(end));
  return {start, whole.page_at(start), std::vector<bool>(from, to)};
}

}  // namespace

std::pair<PageIndex, size_t> ProgramRange::mapped_among(PageIndex from, size_t pages) const {
  const uint64_t last_page = first.value + count();
  uint64_t start = std::clamp(from.value, first.value, last_page);
  uint64_t end = std::clamp(from.value + pages, first.value, last_page);
  while (start < end && !mapped[start - first.value]) ++start;
  while (start < end && !mapped[end - 1 - first.value]) --end;
  return {PageIndex{start}, end - start};
}

std::vector<ProgramRange> cut(std::vector<ProgramRange>& ranges, RemoteAddr start, RemoteAddr end) {
  std::vector<ProgramRange> inside, outside;
  for (ProgramRange& range : ranges) {
    const RemoteAddr from = std::clamp(start, range.address, range.end());
    const RemoteAddr to = std::clamp(end, range.address, range.end());
    if (from >= to) {
      outside.push_back(std::move(range));
      continue;
    }
    if (range.address < from) outside.push_back(part(range, range.address, from));
    inside.push_back(part(range, from, to));
    if (to < range.end()) outside.push_back(part(range, to, range.end()));
  }
  ranges = std::move(outside);
  return inside;
}

}  // namespace krg
