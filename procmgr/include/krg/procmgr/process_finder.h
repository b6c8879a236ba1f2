// ProcessFinder: which process of the cluster executes on which node. Every node lists its own; the
// list of all is asked together when a tool wants it.
//   where {"after": PID}  -> {"processes": [{"pid", "node", "host", "command"}, …], "more": BOOL}
// The processes come by pid, a page at a time: those above PID (none named: from the first).
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/runtime/control_server.h"

namespace krg {

class ProcessFinder {
 public:
  struct Found {
    GlobalPid pid;
    NodeId node;
    std::string host;     // the node's host name
    std::string command;  // /proc/PID/comm
  };
  // Processes that execute on this node (ProcessTable::local_processes).
  using LocalProcesses = std::function<std::vector<pid_t>()>;

  ProcessFinder(NodeContext& node, LocalProcesses local_processes);
  ProcessFinder(const ProcessFinder&) = delete;
  ProcessFinder& operator=(const ProcessFinder&) = delete;

  void add_commands(ControlServer& server);
  // Every process, by pid; without those of nodes that have failed.
  void find_all(std::function<void(std::vector<Found>)> done);

 private:
  std::vector<Found> find_local() const;

  NodeContext& node_;
  LocalProcesses local_processes_;
  std::string host_;
};

}  // namespace krg
