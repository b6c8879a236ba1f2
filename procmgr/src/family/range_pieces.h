// Contents of ranges of a file, one range after the other, as a checkpoint has them. Any thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "krg/procmgr/page_range.h"
#include "krg/runtime/result.h"

namespace krg {

// Calls `use` with the place and the contents of each range, cut at the file's end: `size` bytes.
// Stops at the first error.
template <class Use>
Status for_each_piece(uint64_t size, std::span<const PageRange> ranges,
                      std::span<const std::byte> contents, Use use) {
  for (const PageRange& range : ranges) {
    const uint64_t at = range.start.value;
    const uint64_t inside = at < size ? std::min(range.bytes, size - at) : 0;
    if (auto used = use(at, contents.first(inside)); !used) return used;
    contents = contents.subspan(range.bytes);
  }
  return {};
}

}  // namespace krg
