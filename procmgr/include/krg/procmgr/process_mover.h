// ProcessMover: sends frozen processes of this node to others. The process stays frozen until its
// body is installed there; then it becomes the shadow (or, a body itself, ends silently) and the
// new body is told to run. Until that moment a failure leaves it what it was: exactly one copy ever
// runs.
//
// Threads: the loop's thread. Owned by krgd's main; RemoteFork and Migration use it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>

#include "krg/procmgr/exec_placer.h"

namespace krg {

class FrozenProcess;
class LargeFork;
class MappingTexts;

class ProcessMover {
 public:
  // All of `parts` outlive the mover.
  ProcessMover(NodeContext& node, const ExecPlacer::Parts& parts);
  ~ProcessMover();
  ProcessMover(const ProcessMover&) = delete;
  ProcessMover& operator=(const ProcessMover&) = delete;

  // Moves a process that executes here to `target`, which is neither this node nor the one where
  // its shadow is. `done` gets why it could not be, the process being thawed here: ENOTSUP with the
  // reason, what the target said, ESRCH when it died.
  void move(std::shared_ptr<FrozenProcess> process, NodeId target, WhichFds which,
            std::function<void(Status)> done);
  // The same of the child of a large fork: when it cannot be moved, the forker makes its call
  // again.
  void move(std::shared_ptr<LargeFork> fork, NodeId target, std::function<void(Status)> done);
  // The mappings of a process that forks, as they were read when it last did.
  MappingTexts& mappings_of_forker(pid_t forker);
  // As move(), of a process that runs: freezes it first. Errors besides: those of
  // FrozenProcess::freeze(); EBUSY: it is being placed or moved already.
  void freeze_and_move(pid_t pid, NodeId target, std::function<void(Status)> done);
  // Makes a second process like one that runs here (image/process_copy.h), to execute on `target`,
  // which may be this node; `done` gets its pid. Errors: those of freeze_and_move(); there is no
  // copy then.
  void clone(pid_t pid, NodeId target, std::function<void(Result<pid_t>)> done);
  // How many are on their way.
  size_t moving() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with moves under way
};

}  // namespace krg
