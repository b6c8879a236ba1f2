// SPDX-License-Identifier: GPL-2.0-or-later
#include "program_range.h"

#include <algorithm>

namespace krg {
std::pair<PageIndex, size_t> ProgramRange::mapped_among(PageIndex from, size_t pages) const {
  const uint64_t last_page = first.value + count();
  uint64_t start = std::clamp(from.value, first.value, last_page);
  uint64_t end = std::clamp(from.value + pages, first.value, last_page);
  while (start < end && !mapped[start - first.value]) ++start;
  while (start < end && !mapped[end - 1 - first.value]) --end;
  return {PageIndex{start}, end - start};
}

}  // namespace krg
