// Migration: moves running processes to other nodes on demand (krg_migrate, the balancer), and
// makes second ones like them (krg_clone). A process needs the capability CAN_MIGRATE effective.
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
  // Of spread processes (Spreading).
  struct Threads {
    std::function<pid_t(pid_t tid)> process_of;
    std::function<void(pid_t tid, NodeId target, Done done)> move;
  };

  // All of `parts` outlive it, and so does the mover. `is_online`: whether processes may go there.
  Migration(NodeContext& node, const ExecPlacer::Parts& parts, ProcessMover& mover,
            std::function<bool(NodeId)> is_online, Threads threads);
  Migration(const Migration&) = delete;
  Migration& operator=(const Migration&) = delete;

  // Adds "migrate" {"pid", "node"}: no result; "clone" {"pid", "node" or none}: {"pid"}.
  void add_commands(ControlServer& server);

  // Moves a process, wherever it executes, to `target`; one that is there already stays. Of a
  // spread process it moves one thread, by its own number (the first one has the process's).
  // Errors: ESRCH; EPERM (CAN_MIGRATE); ENODEV (`target` is not online); ENOTSUP with the reason,
  // the process going on where it was; EHOSTDOWN.
  void migrate(GlobalPid pid, NodeId target, Done done);
  // Makes a second process like one that runs, wherever that executes, to execute on `target`
  // (kNoNode: on the same node); `done` gets its pid. It is a child of the original's parent (of
  // init where the original has moved), has the same capabilities, and shares the descriptors'
  // offsets on the same node. Errors: as migrate(); there is no copy then.
  void clone(GlobalPid pid, NodeId target, std::function<void(Result<pid_t>)> done);

 private:
  Status check_may_move(pid_t pid);
  void clone_here(pid_t pid, NodeId target, std::function<void(Result<pid_t>)> done);
  void migrate_here(pid_t pid, NodeId target, Done done);

  NodeContext& node_;
  const ExecPlacer::Parts parts_;
  ProcessMover& mover_;
  std::function<bool(NodeId)> is_online_;
  Threads threads_;
};

}  // namespace krg
