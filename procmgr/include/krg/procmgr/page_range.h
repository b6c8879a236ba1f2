// PageRange: pages of a process that have content of their own.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

#include "krg/runtime/types.h"

namespace krg {

// Pages in a row; travels in images and messages. Bounds are multiples of 4 KiB.
struct PageRange {
  RemoteAddr start;
  uint64_t bytes = 0;
  // Must be there before the process runs: the mapping has a file (or hugetlb pages), which no
  // userfaultfd can bring later; or it is the arguments and environment, which krgd itself reads.
  uint8_t comes_first = 0;
  uint8_t is_huge = 0;   // transparent huge pages
  uint8_t is_clean = 0;  // not written since that was last asked; where it is asked for only
  uint8_t unused[5] = {};

  RemoteAddr end() const { return start + bytes; }
  bool operator==(const PageRange&) const = default;
};
static_assert(sizeof(PageRange) == 24);

}  // namespace krg
