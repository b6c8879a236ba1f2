// NodeInventory: the hardware of every node, for `kradm nodes status`: each krgd measures its own
// when it is asked (in a worker: hwloc reads sysfs). Command: nodes.status.
//
// Virtual nodes that were given processors of their own count those; others count the machine's.
//
// Threads: the loop's thread. Owned by krgd's main. Source: hwloc.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/runtime/control_server.h"
#include "krg/runtime/membership.h"

namespace krg {

struct NumaNode {
  unsigned index = 0;
  unsigned processors = 0;
  uint64_t memory_bytes = 0;
};

struct NodeHardware {
  std::string host;
  unsigned sockets = 0, cores = 0;
  unsigned processors = 0;  // processing units: hardware threads that this process may use
  uint64_t memory_bytes = 0;
  std::vector<NumaNode> numa;
};

// Blocks for some milliseconds. Any thread.
Result<NodeHardware> measure_hardware();
nlohmann::json to_json(const NodeHardware& hardware);

class NodeInventory {
 public:
  struct Sources {
    std::function<NodeState(NodeId)> state;
    std::function<size_t()> processes;  // of the session, that execute on this node
  };
  NodeInventory(NodeContext& node, ControlServer& control, Sources sources);
  NodeInventory(const NodeInventory&) = delete;
  NodeInventory& operator=(const NodeInventory&) = delete;

  // Asks every node. `done` gets an array in the order of the nodes: {"node", "state", "processes",
  // ...} with what to_json() gives. States: "online"; "leaving" when it takes no new processes and
  // has some yet; "present" when it has none; "failed", without the rest, for a node that is gone
  // or did not answer.
  void collect(std::function<void(nlohmann::json nodes)> done);

 private:
  NodeContext& node_;
  Sources sources_;
};

}  // namespace krg
