// SPDX-License-Identifier: GPL-2.0-or-later
#include "program_ranges.h"

#include <algorithm>
#include <iterator>

namespace krg {
namespace {

constexpr uint64_t kPagesTogether = 512;

ProgramRange part(const ProgramRange& whole, RemoteAddr start, RemoteAddr end) {
  const auto from = whole.mapped.begin() + static_cast<ptrdiff_t>(whole.index_of(start));
  const auto to = whole.mapped.begin() + static_cast<ptrdiff_t>(whole.index_of(end));
  return {start, whole.page_at(start), std::vector<bool>(from, to)};
}

// Calls `with` for each group of pages that the range has some of.
template <class With>
void each_group(PageIndex first, size_t count, With with) {
  if (count == 0) return;
  const uint64_t last = (first.value + count - 1) / kPagesTogether;
  for (uint64_t group = first.value / kPagesTogether; group <= last; ++group) with(group);
}

}  // namespace

void ProgramRanges::clear() {
  ranges_.clear();
  starts_.clear();
}

void ProgramRanges::add(ProgramRange range) {
  cut(range.address, range.end());
  index(range);
  ranges_.insert_or_assign(range.address.value, std::move(range));
}

void ProgramRanges::index(const ProgramRange& range) {
  each_group(range.first, range.count(),
             [&](uint64_t group) { starts_[group].push_back(range.address.value); });
}

void ProgramRanges::forget(const ProgramRange& range) {
  each_group(range.first, range.count(), [&](uint64_t group) {
    const auto found = starts_.find(group);
    std::erase(found->second, range.address.value);
    if (found->second.empty()) starts_.erase(found);
  });
}

ProgramRange* ProgramRanges::at(RemoteAddr address) {
  const auto above = ranges_.upper_bound(address.value);
  if (above == ranges_.begin()) return nullptr;
  ProgramRange& range = std::prev(above)->second;
  return range.covers(address) ? &range : nullptr;
}

ProgramRange* ProgramRanges::below(RemoteAddr address) {
  const auto above = ranges_.lower_bound(address.value);
  return above == ranges_.begin() ? nullptr : &std::prev(above)->second;
}

void ProgramRanges::lengthen(RemoteAddr start, size_t count) {
  ProgramRange& range = ranges_.at(start.value);
  forget(range);
  range.mapped.resize(count);
  index(range);
}

ProgramRanges::ByAddress::const_iterator ProgramRanges::first_above(RemoteAddr start) const {
  auto at = ranges_.upper_bound(start.value);
  if (at != ranges_.begin() && std::prev(at)->second.end() > start) --at;
  return at;
}

std::vector<ProgramRange> ProgramRanges::cut(RemoteAddr start, RemoteAddr end) {
  std::vector<ProgramRange> inside, outside;
  for (auto at = first_above(start); at != ranges_.end() && at->second.address < end;) {
    const ProgramRange& range = at->second;
    const RemoteAddr from = std::max(start, range.address);
    const RemoteAddr to = std::min(end, range.end());
    if (range.address < from) outside.push_back(part(range, range.address, from));
    inside.push_back(part(range, from, to));
    if (to < range.end()) outside.push_back(part(range, to, range.end()));
    forget(range);
    at = ranges_.erase(at);
  }
  for (ProgramRange& range : outside) {
    index(range);
    ranges_.insert_or_assign(range.address.value, std::move(range));
  }
  return inside;
}

std::vector<ProgramRange> ProgramRanges::in(RemoteAddr start, RemoteAddr end) const {
  std::vector<ProgramRange> inside;
  for (auto at = first_above(start); at != ranges_.end() && at->second.address < end; ++at) {
    const RemoteAddr from = std::max(start, at->second.address);
    const RemoteAddr to = std::min(end, at->second.end());
    inside.push_back(
        {from, at->second.page_at(from), std::vector<bool>((to.value - from.value) / kPageBytes)});
  }
  return inside;
}

std::vector<RemoteAddr> ProgramRanges::with_pages(PageIndex first, size_t count) const {
  std::vector<RemoteAddr> found;
  const auto take = [&](const ProgramRange& range) {
    if (range.first.value < first.value + count && first.value < range.first.value + range.count())
      found.push_back(range.address);
  };
  if (count / kPagesTogether > ranges_.size()) {
    for (const auto& [start, range] : ranges_) take(range);
    return found;
  }
  each_group(first, count, [&](uint64_t group) {
    if (const auto starts = starts_.find(group); starts != starts_.end())
      for (uint64_t start : starts->second) take(ranges_.at(start));
  });
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

}  // namespace krg
