// ProcessFinder: which process of the cluster executes on which node. Every node lists its own; the
// list of all is asked together when a tool wants it.
//   where {"after": PID}  -> {"processes": [{"pid", "node", "host", "command"}, …], "more": BOOL}
// The processes come by pid, a page at a time: those above PID (none named: from the first). A
// spread process also has "threads": [{"tid", "node"}, …], where each executes.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
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
    std::string host;                      // the node's host name
    std::string command;                   // /proc/PID/comm
    std::map<pid_t, NodeId> threads = {};  // of a spread process
  };
  // Processes that execute on this node (ProcessTable::local_processes).
  using LocalProcesses = std::function<std::vector<pid_t>()>;
  // Where the threads of such a process are, if it is spread (Spreading::threads_of).
  using ThreadsOf = std::function<std::map<pid_t, NodeId>(pid_t)>;

  ProcessFinder(NodeContext& node, LocalProcesses local_processes, ThreadsOf threads_of = {});
  ProcessFinder(const ProcessFinder&) = delete;
  ProcessFinder& operator=(const ProcessFinder&) = delete;

  void add_commands(ControlServer& server);
  // Every process, by pid; without those of nodes that have failed.
  void find_all(std::function<void(std::vector<Found>)> done);

 private:
  std::vector<Found> find_local() const;

  NodeContext& node_;
  LocalProcesses local_processes_;
  ThreadsOf threads_of_;
  std::string host_;
};

}  // namespace krg
