// RemotePrograms: the page sets of processes that use memory of other nodes: one for each address
// space, open on every node, gone everywhere with its last mapping; and the sets that other nodes
// keep pages of here.
//
// Threads: the loop's thread. Owned by RemoteMemory.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "krg/shmem/page_set.h"
#include "memory_ledger.h"
#include "page_ranges.h"

namespace krg {

struct RemoteProgram {
  pid_t pid = 0;
  std::unique_ptr<PageSet> pages = nullptr;
  PageRanges ranges = {};
  uint64_t reserved = 0;    // pages, with the ledger
  unsigned mapping = 0;     // mappings that are being made
  unsigned discarding = 0;  // ranges on their way back
  // Who was told that there is no memory, while some was on its way back.
  std::vector<std::function<void()>> waiting = {};
};
using RemoteProgramPtr = std::shared_ptr<RemoteProgram>;

class RemotePrograms {
 public:
  RemotePrograms(NodeContext& node, Kddm& kddm);
  RemotePrograms(const RemotePrograms&) = delete;
  RemotePrograms& operator=(const RemotePrograms&) = delete;

  // The process's, in the address space that it has now; nothing when it has none.
  RemoteProgramPtr find(pid_t pid);
  // Makes it if need be. Counts as a mapping that is being made: end_mapping() has to follow.
  void begin_mapping(pid_t pid, std::function<void(Result<RemoteProgramPtr>)> done);
  void end_mapping(const RemoteProgramPtr& program);
  // Pages in a row for a new mapping. Errors: ENOMEM.
  void allocate(const RemoteProgramPtr& program, size_t count,
                std::function<void(Result<PageIndex>)> done);
  // They are not mapped any more.
  void free(const RemoteProgramPtr& program, PageSet::Pages pages);
  // They become zeros.
  void clear(const RemoteProgramPtr& program, const std::vector<PageSet::Pages>& pages,
             std::function<void()> done);
  bool any() const { return !programs_.empty(); }

 private:
  void take_messages();
  void make(pid_t pid, std::function<void(Result<RemoteProgramPtr>)> done);
  Status grow(RemoteProgram& program, size_t pages);
  void drop_if_idle(const RemoteProgramPtr& program);
  void tell_others(const std::function<void(NodeId)>& tell) const;

  NodeContext& node_;
  Kddm& kddm_;
  MemoryLedger ledger_;
  // Those of one process cannot wait for each other's address space to change.
  std::vector<RemoteProgramPtr> programs_;
  std::map<uint64_t, std::unique_ptr<PageSet>> lent_;  // other nodes' sets
  uint32_t next_set_ = 1;
};

}  // namespace krg
