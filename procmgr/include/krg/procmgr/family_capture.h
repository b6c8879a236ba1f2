// capture_family(): stops a process and all that descend from it, takes their images and copies of
// their memory (copy-on-write), and lets them go on: the copies can be read afterwards, while the
// programs run.
//
// A parent is stopped before its children are looked for, so that none is missed, and one that
// waits in vfork(2) for its child's exec gets to its end. The process that asked (a tool that is
// itself a descendant) is not stopped: in the image it has ended with success, so that whoever
// waits for it goes on after a restart.
//
// Refused, everything going on as it was (ENOTSUP with the reason): what image_capture.h refuses; a
// member that executes on another node; a descriptor that cannot be had again; pipes that lead out
// of the family, but for the standard streams.
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <span>

#include "krg/procmgr/capability_table.h"
#include "krg/procmgr/family_tracking.h"
#include "krg/procmgr/page_moves.h"
#include "krg/procmgr/page_range.h"
#include "krg/procmgr/process_family.h"
#include "krg/procmgr/process_table.h"

namespace krg {

struct CopiedPages;

// Members' memory as it was at the moment of the capture. Kept until this goes, which must be in
// the loop's thread.
class FamilySnapshot {
 public:
  // A range of a member's pages that has content. `member`: its index. range.is_clean: as it was at
  // the capture that this one goes on from; read() has only the others.
  struct Pages {
    uint32_t member = 0;
    PageRange range;
  };

  explicit FamilySnapshot(ProcessTable& table) : table_(table) {}
  ~FamilySnapshot();
  FamilySnapshot(const FamilySnapshot&) = delete;
  FamilySnapshot& operator=(const FamilySnapshot&) = delete;

  ProcessFamily family;
  std::chrono::microseconds pause{0};  // from the first stop to the last thaw
  uint64_t number = 0;                 // of the capture; 0: none can go on from it

  // All pages with content, members in order, sorted by address. Any thread. Errors: ESRCH.
  Result<std::vector<Pages>> pages() const;
  // Contents of `ranges`, all of one member, one after the other. Any thread, several at once.
  // Errors: ESRCH, EFAULT. REQUIRES: `into` is as long as the ranges together.
  Status read(uint32_t member, std::span<const PageRange> ranges, std::span<std::byte> into) const;

 private:
  friend class FamilyCapture;
  struct Memory {
    pid_t task = 0;  // a copy of the process; 0: all that read() has was copied
    bool is_tracked = false;
    std::vector<PageRange> pages;         // where it is tracked
    std::shared_ptr<CopiedPages> shared;  // what it has for all members
    std::shared_ptr<CopiedPages> copied;  // with a task: memory that no copy has (MADV_DONTFORK, …)
  };
  ProcessTable& table_;
  std::vector<Memory> memories_;  // by member
};

struct FamilyCaptureParts {
  NodeContext& node;
  ProcessTable& table;
  CapabilityTable& capabilities;
  PageMoves* pages;                      // null: no pages ever come later
  std::function<bool(dev_t)> is_served;  // by krgd (krgfs)
  FamilyTracking* tracking = nullptr;    // null: each capture has all pages
};

// `asker`: the process that asked, 0 for none. `base`: the capture (FamilySnapshot::number) whose
// pages need not be had again; 0: none. `done` runs later, in the loop. Errors: as above; ESRCH;
// EBUSY: a member is being moved; ETIMEDOUT: one does not stop.
void capture_family(const FamilyCaptureParts& parts, pid_t root, pid_t asker, uint64_t base,
                    std::function<void(Result<std::unique_ptr<FamilySnapshot>>)> done);

}  // namespace krg
