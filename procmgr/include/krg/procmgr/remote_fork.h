// RemoteFork: fork to other nodes (docs/ARCHITECTURE.md). A child that a process with DISTANT_FORK
// forks is frozen before its first instruction, moved to the node that placement chooses, and goes
// on there; the child here becomes its shadow. The children of programs that exec at once
// (ForkHabits) are left to placement at exec. What cannot be taken along stays here.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "krg/procmgr/exec_placer.h"
#include "krg/procmgr/process_mover.h"

namespace krg {

// More children than this on their way at once: further ones stay.
inline constexpr size_t kMaxForksMoving = 64;

class RemoteFork {
 public:
  // Takes the broker's fork and clone. All of `parts` outlive it, and so does the mover.
  // REQUIRES: node.children.
  RemoteFork(NodeContext& node, const ExecPlacer::Parts& parts, ProcessMover& mover);
  ~RemoteFork();
  RemoteFork(const RemoteFork&) = delete;
  RemoteFork& operator=(const RemoteFork&) = delete;

  // A process that a program forked is about to exec for the first time.
  void child_execs(const KnownForkers::Program& forker);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with what is under way
};

}  // namespace krg
