// FamilyTree: the tree of a family's processes, each a copy of its parent as it has just execed,
// with its place in sessions and groups; what they are to be comes afterwards.
//
// Threads: the loop's thread, which is the tracer. All end with it unless they were let go.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <vector>

#include "image/frozen_process.h"
#include "krg/procmgr/process_family.h"

namespace krg {

class FamilyTree {
 public:
  FamilyTree(ChildReaper& reaper, const ProcessFamily& family)
      : reaper_(reaper), family_(family), processes_(family.members.size()) {}
  ~FamilyTree();

  // Errors: EEXIST: a pid is taken; EPERM: pids may not be chosen; ESRCH.
  Status grow(FrozenThread root);
  const std::shared_ptr<FrozenProcess>& process(uint32_t member) const {
    return processes_.at(member);
  }
  // It is not the tree's any more.
  std::shared_ptr<FrozenProcess> release(uint32_t member) {
    return std::move(processes_.at(member));
  }
  // Those that had ended end. REQUIRES: all others know what they do with SIGCHLD.
  Status end_zombies();

 private:
  Status fork(uint32_t member);
  Status join_groups();

  ChildReaper& reaper_;
  const ProcessFamily& family_;
  std::vector<std::shared_ptr<FrozenProcess>> processes_;
};

}  // namespace krg
