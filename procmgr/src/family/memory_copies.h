// MemoryCopies: what this node owns of the memory that nodes share, as it is while a family stands.
// It is copied while the family goes on again, pages that are about to change first. What nobody
// has written since the capture before is told of only.
//
// Threads: the loop's thread. Owned by LocalCapture. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "family/family_memory.h"
#include "krg/procmgr/family_tracking.h"
#include "krg/procmgr/shared_memory.h"
#include "spread/saved_pages.h"

namespace krg {

// A file of that memory.
struct MemoryRow {
  uint32_t owner = 0, padding = 0;  // as FamilySnapshot::Pages has it
  uint64_t file = 0;
  uint64_t pages = 0;
};

// Of one file; addresses are offsets in it.
struct CopiedMemory {
  CopiedPages changed;
  std::vector<PageRange> clean;  // as the capture before has them
  // All, sorted.
  std::vector<PageRange> ranges() const;
};

class MemoryCopies : public std::enable_shared_from_this<MemoryCopies> {
 public:
  // `tracking`: null: nothing is known of captures before.
  MemoryCopies(NodeContext& node, SharedMemory& memory, FamilyTracking* tracking);

  // Waits until nothing is on its way here; `done` gets what a FamilySettleMemory is answered with.
  // Errors: EBUSY: it does not come to rest; EOWNERDEAD.
  void settle(std::vector<MemoryRow> rows, uint64_t base,
              std::function<void(Result<std::string>)> done);
  // Begins; tells whether there is something. `written`: payload of FamilyCopyMemory. Errors:
  // ENOTSUP: it is too much; EAGAIN; EOWNERDEAD; ENOMEM. REQUIRES: all nodes have settled.
  Result<bool> begin(uint64_t capture, std::string_view written);
  // `done` runs when all has been copied; perhaps in this call.
  void finish(std::function<void(Status)> done);
  // By owner; given up. REQUIRES: finish() is done.
  std::map<uint32_t, CopiedMemory> take();

 private:
  struct File;
  using FilePtr = std::shared_ptr<File>;
  Status look() const;
  void settled(uint64_t base, const std::function<void(Result<std::string>)>& done);
  void try_to_settle(uint64_t base, int tries, std::function<void(Result<std::string>)> done);
  Status plan(File& file, std::string_view written);
  void copied(const FilePtr& file, const Status& how);
  size_t living_nodes() const;

  NodeContext& node_;
  SharedMemory& memory_;
  FamilyTracking* const tracking_;
  uint64_t capture_ = 0;
  std::vector<FilePtr> files_;
  size_t under_way_ = 0;
  std::optional<Error> failure_;
  std::function<void(Status)> done_;
};

}  // namespace krg
