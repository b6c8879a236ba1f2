// SpreadMemory: where a spread process has pages of its page set mapped: the same in all replicas.
// Everything else in its address space is either the same read-only file everywhere, or at home
// only, where threads go that touch it. Pure: no system calls.
//
// Threads: the loop's thread. Owned by SpreadProcess.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "krg/runtime/types.h"
#include "krg/shmem/ids.h"
#include "page_ranges.h"

namespace krg {

// Travels in messages.
struct SpreadRange {
  RemoteAddr start;
  uint64_t bytes = 0;
  PageIndex first;  // page of the set
  uint32_t protection = 0;
  uint32_t unused = 0;

  RemoteAddr end() const { return start + bytes; }
  bool operator==(const SpreadRange&) const = default;
};

class SpreadMemory {
 public:
  // Pages that no mapping uses.
  PageIndex take_pages(uint64_t bytes);
  // REQUIRES: nobody has them mapped any more.
  void give_back(const SpreadRange& range);
  // All pages lie below.
  size_t set_pages() const { return pages_.end(); }

  // REQUIRES: nothing of it is mapped.
  void map(const SpreadRange& range);
  // Takes out what lies in the range; returns it.
  std::vector<SpreadRange> unmap(RemoteAddr start, uint64_t bytes);
  // What lies in the range has that protection from now on. False when a part of the range is not
  // mapped.
  bool protect(RemoteAddr start, uint64_t bytes, uint32_t protection);
  // What lies in the range, cut at its bounds.
  std::vector<SpreadRange> in(RemoteAddr start, uint64_t bytes) const;
  // The whole range that the address lies in.
  std::optional<SpreadRange> find(RemoteAddr address) const;
  // Where `bytes` from the address on lie in the set, as a file; none when not in one range.
  std::optional<uint64_t> offset_of(RemoteAddr address, uint64_t bytes) const;
  std::vector<SpreadRange> all() const;

 private:
  void cut(RemoteAddr at);

  std::map<uint64_t, SpreadRange> ranges_;  // by start
  PageRanges pages_;
};

}  // namespace krg
