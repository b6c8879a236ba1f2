// SpreadProcessors: which processors of the cluster are which node's, for a thread that binds
// itself to some.
//
// Threads: the loop's thread. Owned by SpreadProcess. NodeResources lives as long as krgd.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>

#include "krg/procmgr/node_resources.h"
#include "processor_numbers.h"

namespace krg {

class SpreadProcessors {
 public:
  explicit SpreadProcessors(NodeResources& resources) : resources_(resources) {}

  // Of `wanted` (the cluster's numbers), what each node has, counted from its first one on; nodes
  // that have none are not there. `done` runs when all nodes have told their processors.
  using Parts = std::map<NodeId, ProcessorSet>;
  void divide(const ProcessorSet& wanted, std::function<void(const Parts&)> done);
  // The numbers in the cluster of what this node has, by its own ones; likewise, when all are
  // known.
  void name(const ProcessorSet& own, std::function<void(const ProcessorSet&)> done);
  // What the node has of it, by the cluster's numbers. Of the nodes known so far.
  ProcessorSet part(const ProcessorSet& wanted, NodeId node) const;
  // How many all nodes have.
  unsigned count() const { return resources_.total_processors(); }
  // This node's own numbers of a part of it; all that it has where the part is empty.
  ProcessorSet own_numbers(const ProcessorSet& part) const;

 private:
  NodeResources& resources_;
};

}  // namespace krg
