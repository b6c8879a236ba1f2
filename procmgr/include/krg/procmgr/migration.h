// Migration: moves running processes to other nodes on demand (krg_migrate, the balancer). A
// process needs the capability CAN_MIGRATE effective.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>

#include "krg/procmgr/process_mover.h"
#include "krg/runtime/control_server.h"

namespace krg {

class Migration {
 public:
  using Done = std::function<void(Status)>;

  // All of `parts` outlive it, and so does the mover. `is_online`: whether processes may go there.
  Migration(NodeContext& node, const ExecPlacer::Parts& parts, ProcessMover& mover,
            std::function<bool(NodeId)> is_online);
  Migration(const Migration&) = delete;
  Migration& operator=(const Migration&) = delete;

  // Adds "migrate" {"pid", "node"}: no result.
  void add_commands(ControlServer& server);

  // Moves a process, wherever it executes, to `target`; one that is there already stays. Errors:
  // ESRCH; EPERM (CAN_MIGRATE); ENODEV (`target` is not online); ENOTSUP with the reason, the
  // process going on where it was; EHOSTDOWN.
  void migrate(GlobalPid pid, NodeId target, Done done);

 private:
  void migrate_here(pid_t pid, NodeId target, Done done);

  NodeContext& node_;
  const ExecPlacer::Parts parts_;
  ProcessMover& mover_;
  std::function<bool(NodeId)> is_online_;
};

}  // namespace krg
