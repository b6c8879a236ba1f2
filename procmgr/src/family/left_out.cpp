// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/left_out.h"

#include <algorithm>
#include <utility>

namespace krg {
namespace {

constexpr uint64_t kHugePage = 2u << 20;

// `pages` without what lies between the bounds.
void cut(const PageRange& pages, RemoteAddr start, RemoteAddr end, std::vector<PageRange>& into) {
  if (pages.is_huge) {
    start.value = (start.value + kHugePage - 1) / kHugePage * kHugePage;
    end.value = end.value / kHugePage * kHugePage;
  }
  if (start >= end || end <= pages.start || pages.end() <= start) return into.push_back(pages);
  PageRange before = pages, after = pages;
  if (pages.start < start) {
    before.bytes = start.value - pages.start.value;
    into.push_back(before);
  }
  if (end < pages.end()) {
    after.start = end;
    after.bytes = pages.end().value - end.value;
    into.push_back(after);
  }
}

}  // namespace

void leave_out(std::vector<PageRange>& pages, std::span<const PageRange> left_out) {
  for (const PageRange& out : left_out) {
    std::vector<PageRange> left;
    for (const PageRange& range : pages) cut(range, out.start, out.end(), left);
    pages = std::move(left);
  }
}

bool is_left_out(std::span<const PageRange> before, std::span<const PageRange> now) {
  return std::all_of(before.begin(), before.end(), [now](const PageRange& range) {
    return std::any_of(now.begin(), now.end(), [&range](const PageRange& out) {
      return out.start <= range.start && range.end() <= out.end();
    });
  });
}

}  // namespace krg
