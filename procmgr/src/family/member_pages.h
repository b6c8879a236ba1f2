// MemberPages: the memory of one stopped member as it is at that moment: a copy of the process, or
// copies of what was written since the capture before. Kept while it runs on.
//
// Threads: taken in the loop's thread; pages() and read() by any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "family/family_memory.h"
#include "family/page_digests.h"
#include "image/frozen_process.h"
#include "image/process_image.h"
#include "krg/procmgr/family_tracking.h"
#include "krg/procmgr/live_pages.h"
#include "krg/procmgr/process_table.h"
#include "spread/standing_spread.h"

namespace krg {

struct MemberPages {
  explicit MemberPages(ProcessTable& process_table) : table(process_table) {}
  ~MemberPages();  // in the loop's thread
  MemberPages(const MemberPages&) = delete;
  MemberPages& operator=(const MemberPages&) = delete;

  ProcessTable& table;
  pid_t task = 0;                   // a copy of the process; 0: all that read() has was copied
  std::vector<PageRange> left_out;  // of its own memory; set before take()
  bool is_tracked = false;
  std::vector<PageRange> tracked;                    // where it is
  CopiedPages shared;                                // what it has for all members
  std::shared_ptr<const PageDigests> shared_before;  // in the capture before; null: all is new
  std::shared_ptr<PageDigests> shared_now;           // filled by pages(); null: not wanted
  CopiedPages copied;  // with a task: memory that no copy has (MADV_DONTFORK, …)
  CopiedPages of_set;  // of one that is spread: what `task` has not

  // `written`: what is known since the capture that this one goes on from; taken. Null: nothing.
  // `live`: that was none, but these were saved while it ran; null: it was one.
  Status take(FrozenProcess& process, const ProcessImage& image, WrittenPages* written,
              const LivePages* live);
  // Of one that is spread what is at home only, if that is little (is_tracked); add() brings the
  // rest, or all.
  Status take_at_home(const FrozenProcess& process, WrittenPages* written);
  void add(StandingSpread::Memory memory);
  // Sorted by address; once. Errors: ESRCH.
  Result<std::vector<PageRange>> pages() const;
  // Contents of `ranges`, one after the other, where they lie so in memory; null: read() has them.
  const std::byte* find_all(std::span<const PageRange> ranges) const;
  Status read(std::span<const PageRange> ranges, std::span<std::byte> into) const;

 private:
  void adopt(pid_t copy);
  Status set_copied(Result<CopiedPages> pages);
  Status stage(const FrozenProcess& process);
  Status copy_process(FrozenProcess& process, const ProcessImage& image);
  Status read_apart(const FrozenProcess& process, const ProcessImage& image);
};

}  // namespace krg
