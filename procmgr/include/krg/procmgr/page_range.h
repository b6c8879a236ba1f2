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
  // The mapping has a file (or hugetlb pages): no userfaultfd can bring them later.
  uint8_t has_file = 0;
  uint8_t is_huge = 0;  // transparent huge pages
  uint8_t unused[6] = {};

  RemoteAddr end() const { return start + bytes; }
  bool operator==(const PageRange&) const = default;
};
static_assert(sizeof(PageRange) == 24);

}  // namespace krg
