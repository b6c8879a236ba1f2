// ProgramRanges: the ranges of a program's addresses that map pages of one page set, found by
// address and by page, however many there are: a program of thousands of threads has one for each
// stack. Pure. Owned by its space (ProgramSpaces). Invariant: no two share an address.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <unordered_map>
#include <vector>

#include "program_range.h"

namespace krg {

class ProgramRanges {
 public:
  bool empty() const { return ranges_.empty(); }
  size_t size() const { return ranges_.size(); }
  void clear();
  // Takes the place of what was there.
  void add(ProgramRange range);
  // Null: none covers it. Valid until ranges are added, cut or lengthened.
  ProgramRange* at(RemoteAddr address);
  // The last one that begins below; null: none does.
  ProgramRange* below(RemoteAddr address);
  // The one that begins there has so many pages now. REQUIRES: one does; what is behind it is free.
  void lengthen(RemoteAddr start, size_t count);
  // Takes what lies in [start, end) out and returns it.
  std::vector<ProgramRange> cut(RemoteAddr start, RemoteAddr end);
  // The pages that are mapped in [start, end), in order of addresses, as ranges of which nothing is
  // in page tables.
  std::vector<ProgramRange> in(RemoteAddr start, RemoteAddr end) const;
  // Where the ranges begin that map some of [first, first + count).
  std::vector<RemoteAddr> with_pages(PageIndex first, size_t count) const;

 private:
  using ByAddress = std::map<uint64_t, ProgramRange>;
  void index(const ProgramRange& range);
  void forget(const ProgramRange& range);
  ByAddress::const_iterator first_above(RemoteAddr start) const;

  ByAddress ranges_;
  std::unordered_map<uint64_t, std::vector<uint64_t>> starts_;  // by page / kPagesTogether
};

}  // namespace krg
