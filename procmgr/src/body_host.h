// BodyHost: the bodies of this node, from the request to start one until their origin knows how
// they ended. A body begins with the exec of a program, or as the image of a process.
//
// Threads: the loop's thread. Owned by ExecPlacer.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "krg/procmgr/exec_placer.h"

namespace krg {

class BodyHost {
 public:
  // All of `parts` outlive the host.
  BodyHost(NodeContext& node, const ExecPlacer::Parts& parts);
  ~BodyHost();
  // A process that has execed before is about to do so again: its origin is told when it is a body
  // that was made at its fork just now.
  void execs(pid_t pid);
  BodyHost(const BodyHost&) = delete;
  BodyHost& operator=(const BodyHost&) = delete;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with what is under way
};

}  // namespace krg
