// ProgramRange: one range of a program's addresses that maps a page set's pages, and which of them
// its page table shows. Pure. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "krg/runtime/types.h"
#include "krg/shmem/ids.h"
#include "krg/shmem/page_set.h"

namespace krg {

struct ProgramRange {
  RemoteAddr address;
  PageIndex first;
  std::vector<bool> mapped;  // by page; as many as there are

  size_t count() const { return mapped.size(); }
  RemoteAddr end() const { return address + count() * kPageBytes; }
  bool covers(RemoteAddr at) const { return at >= address && at < end(); }
  bool covers(PageIndex page) const { return page >= first && page.value - first.value < count(); }
  size_t index_of(RemoteAddr at) const { return (at.value - address.value) / kPageBytes; }
  PageIndex page_at(RemoteAddr at) const { return {first.value + index_of(at)}; }
  RemoteAddr address_of(PageIndex page) const {
    return address + (page.value - first.value) * kPageBytes;
  }
  // From the first to the last mapped page of these: first one, count.
  std::pair<PageIndex, size_t> mapped_among(PageIndex from, size_t pages) const;
};

}  // namespace krg
