// Applications: which processes make up one: the tree of the topmost process that has
// CHECKPOINTABLE effective, each on the way to it having it, too, over the nodes.
//
// Threads: the loop's thread. Owned by Checkpoints. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "checkpoint_messages.h"
#include "krg/procmgr/family_capture.h"

namespace krg {

class Applications : public std::enable_shared_from_this<Applications> {
 public:
  using Application = checkpoint_messages::Application;
  using Done = std::function<void(Result<Application>)>;

  Applications(NodeContext& node, ProcessTable& table, CapabilityTable& capabilities)
      : node_(node), table_(table), capabilities_(capabilities) {}
  void listen();

  // That of `pid`, wherever it executes. Errors: ESRCH; EPERM: it is in none.
  void find(pid_t pid, Done done);
  // Whose roots, as far as it is known here, execute on this node.
  std::vector<pid_t> local_roots() const;

 private:
  bool is_checkpointable(pid_t pid) const;
  void climb(checkpoint_messages::FindApplication ask, Done done);
  void ask(NodeId to, const checkpoint_messages::FindApplication& question, Done done);

  NodeContext& node_;
  ProcessTable& table_;
  CapabilityTable& capabilities_;
};

}  // namespace krg
