// BodyHost: the bodies of this node, from the request to start one until their origin knows how
// they ended.
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
  BodyHost(const BodyHost&) = delete;
  BodyHost& operator=(const BodyHost&) = delete;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with what is under way
};

}  // namespace krg
