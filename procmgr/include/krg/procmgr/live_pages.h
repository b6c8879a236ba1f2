// LivePages: the memory of one node's large members that is saved while they run, before they are
// stopped for a capture (FamilyCaptures): pages that have been protected, and that nobody has
// written since. Each page is read at some moment after that; what is written after it the capture
// has anew, so that what both have together is the memory at the capture.
//
// Owned by the capture that watches them, and by who saves them. Threads: next() one at a time,
// read() by any, the rest in the loop's thread while neither runs.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <vector>

#include "krg/procmgr/page_range.h"

namespace krg {

class LivePages {
 public:
  struct Member {
    pid_t pid = 0;
    std::vector<PageRange> left_out;  // what it does not want to have saved
  };
  struct Pages {
    uint32_t member = 0;  // index into members()
    PageRange range;
  };

  // REQUIRES: pages of these are protected, and a write to one is told (WrittenPages).
  explicit LivePages(std::vector<Member> members);

  const std::vector<Member>& members() const { return members_; }
  // Of pages to be saved, at the most.
  uint64_t bytes() const { return bytes_; }

  // Further pages that nobody has written so far, at least `wanted` bytes of them while there are
  // so many, sorted by address; each is told once. Empty: there are no more.
  std::vector<Pages> next(uint64_t wanted);
  // Contents of `ranges`, one after the other. What has gone meanwhile reads as zeros; it has not
  // been saved then. REQUIRES: `into` is as long as the ranges together.
  void read(uint32_t member, std::span<const PageRange> ranges, std::span<std::byte> into);

  // Of the pages of a member that has stopped, sorted by address: those that are clean and have
  // not been saved are clean no longer.
  void mark_unsaved(pid_t pid, std::vector<PageRange>& pages) const;

  // Whatever who saves them has of them; goes with them.
  std::shared_ptr<void> saved;

 private:
  struct Span {
    uint32_t member = 0;
    PageRange range;
  };
  void add_clean(const Span& span, std::vector<Pages>& found);
  void read_one_by_one(uint32_t member, const PageRange& range, std::span<std::byte> into);

  const std::vector<Member> members_;
  std::vector<Span> spans_;  // to be looked at
  size_t next_span_ = 0;
  uint64_t bytes_ = 0;
  std::vector<std::vector<PageRange>> told_;  // by member, sorted by address
  std::mutex mutex_;                          // of what follows, while read() runs
  std::map<pid_t, std::set<uint64_t>> gone_;  // pages that could not be read
};

}  // namespace krg
