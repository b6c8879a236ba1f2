// FamilyCaptures: stops a process and all that descend from it, on whatever nodes they execute,
// takes their images and copies of their memory (copy-on-write), and lets them go on: the copies
// can be read afterwards, each on its node, while the programs run.
//
// A parent is stopped before its children are looked for, so that none is missed, and before they
// are, so that one that waits in vfork(2) for its child's exec gets to its end. The process that
// asked (a tool that is itself a descendant) is not stopped: in the image it has ended with
// success, so that whoever waits for it goes on after a restart.
//
// The node where a capture is asked for leads it; all of them carry out what it says:
//
//   look     those that are known and descend from them are told, their mappings read
//   freeze   the same until no node knows of another one and all stand
//   flush    what they have sent each other before has arrived: signals, and news of their nodes
//   take     images, pages, what is open on each node
//   describe open files and pipes, each at the node that has it
//   settle   memory that nodes share is at rest; each node tells what was written of it
//   copy     each node begins to copy what it owns of that
//   thaw     all go on
//   finish   what has to be copied has been
//
// Before that the pages of large members may be saved while they run (Order::only_watches): what
// watches them is made in a short stop, their pages are protected while they run, and a second stop
// sees the end of all that a system call had begun to write before that.
//
// Refused, everything going on as it was (ENOTSUP with the reason): what image_capture.h refuses; a
// descriptor that cannot be had again; pipes that lead out of the family, but for the standard
// streams.
//
// Threads: the loop's thread. Owned by who writes checkpoints.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <span>

#include "krg/procmgr/capability_table.h"
#include "krg/procmgr/family_tracking.h"
#include "krg/procmgr/page_moves.h"
#include "krg/procmgr/page_range.h"
#include "krg/procmgr/process_family.h"
#include "krg/procmgr/process_table.h"

namespace krg {

class Descriptors;
class Ipc;
class LivePages;
class FrozenProcess;
class SharedMemory;
struct CopiedMemory;
class StandingSpread;
struct MemberPages;
struct SavedFile;

// One node's members' memory as it was at the moment of the capture. Dropped in the loop's thread.
class FamilySnapshot {
 public:
  // A range of a member's pages that has content. `member`: its index; behind those: of a file,
  // whose contents are saved (its addresses are offsets), or of memory that nodes share, likewise
  // (ProcessFamily::owner_of_memory()). range.is_clean: as it was at the capture
  // that this one goes on from; read() has only the others.
  struct Pages {
    uint32_t member = 0;
    PageRange range;
  };

  FamilySnapshot();
  ~FamilySnapshot();
  FamilySnapshot(const FamilySnapshot&) = delete;
  FamilySnapshot& operator=(const FamilySnapshot&) = delete;

  // The whole family; images and contents of this node only.
  ProcessFamily family;

  // All pages with content of this node's members, in order, sorted by address. Any thread. Errors:
  // ESRCH.
  Result<std::vector<Pages>> pages() const;
  // Contents of `ranges`, all of one member, one after the other, where they lie so in memory till
  // this goes; null: read() has them. Any thread.
  const std::byte* find_all(uint32_t member, std::span<const PageRange> ranges) const;
  // Contents of `ranges`, all of one member, one after the other. Any thread, several at once.
  // Errors: ESRCH, EFAULT. REQUIRES: `into` is as long as the ranges together.
  Status read(uint32_t member, std::span<const PageRange> ranges, std::span<std::byte> into) const;

 private:
  friend class LocalCapture;
  std::vector<std::unique_ptr<MemberPages>> members_;  // by member; null: of another node
  std::map<uint32_t, std::unique_ptr<SavedFile>> files_;
  std::map<uint32_t, CopiedMemory> memories_;
};

// Processes of this node whose threads run on others, too (Spreading). Empty: there are none.
struct SpreadMembers {
  enum class State { kOrdinary, kSpread, kIsBeingSpread };
  std::function<State(pid_t)> state_of = {};
  // As Spreading's functions of these names.
  std::function<void(pid_t, std::function<void(Result<std::shared_ptr<StandingSpread>>)>)> stand =
      {};
  std::function<void(std::shared_ptr<FrozenProcess>, const std::string& state,
                     std::function<void(Status)>)>
      restore = {};
};

struct FamilyCaptureParts {
  NodeContext& node;
  ProcessTable& table;
  CapabilityTable& capabilities;
  PageMoves* pages;                      // null: no pages ever come later
  std::function<bool(dev_t)> is_served;  // by krgd (krgfs)
  Descriptors* descriptors = nullptr;    // null: none is at another node
  FamilyTracking* tracking = nullptr;    // null: each capture has all pages
  SpreadMembers spread = {};
  Ipc* ipc = nullptr;                          // null: nodes share no objects
  std::function<SharedMemory*()> shared = {};  // none, or null: nodes share no memory
  // Which standard stream of whoever started processes here that is to who has it open to read or
  // to write: 0 to 2; -1, or null: none.
  std::function<int(dev_t, ino_t, bool is_written)> stream_of = {};
  // What a process does not want to have saved of its own memory; none: null, too.
  std::function<std::vector<PageRange>(pid_t)> left_out = {};
  SharedMemory* shared_memory() const { return shared ? shared() : nullptr; }
};

class FamilyCaptures {
 public:
  // All of `parts` outlive it.
  explicit FamilyCaptures(FamilyCaptureParts parts);
  ~FamilyCaptures();
  FamilyCaptures(const FamilyCaptures&) = delete;
  FamilyCaptures& operator=(const FamilyCaptures&) = delete;

  struct Captured {
    uint64_t number = 0;                 // all nodes know it by this
    ProcessFamily family;                // without images and contents, which its nodes have
    std::vector<uint32_t> nodes;         // that have a part of it
    std::chrono::microseconds pause{0};  // from the first stop to the last thaw
  };
  struct Order {
    pid_t root = 0;
    pid_t asker = 0;            // the process that asked; 0: none
    uint32_t job = 0;           // whose orphans are members, too; 0: none's
    uint64_t base = 0;          // the capture whose pages need not be had again; 0: none
    bool saves_files = false;   // contents of files that members have open for writing
    bool only_freezes = false;  // all stand until drop(); no share is had
    // Pages of large members can be saved while they run (live_pages()); a capture that has this as
    // its base need not have those that were.
    bool only_watches = false;
    uint64_t frozen = 0;  // the number under which they stand already, and stay so
  };
  // `done` runs later. Errors: as above; ESRCH; EBUSY: a member is being moved;
  // ETIMEDOUT: one does not stop; EHOSTDOWN.
  void capture(const Order& order, std::function<void(Result<Captured>)> done);
  // What this node has of a capture, made part of `family`. Errors: ESRCH.
  Result<std::shared_ptr<FamilySnapshot>> share_of(uint64_t capture, ProcessFamily family);
  // Of a capture that only watches: this node's; null: there is nothing.
  std::shared_ptr<LivePages> live_pages(uint64_t watch) const;
  // Every node lets go of it; those that stand go on.
  void drop(uint64_t capture);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with what is under way
};

}  // namespace krg
