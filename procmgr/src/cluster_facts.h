// ClusterFacts: what does not change about each node while it lives: its clock and its processors.
// Each node is asked once, when the facts are first needed. The processors of the cluster are those
// of the living nodes, in the order of the nodes (as NodeResources counts them).
//
// Threads: the loop's thread. Owned by ProcView.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "cpu_numbers.h"
#include "krg/procmgr/node_context.h"
#include "pid_texts.h"
#include "plain_files.h"

namespace krg {

struct NodeFacts {
  int64_t boot_epoch_ns = 0;
  CpuNumbers cpus;             // that the cluster shows, by the node's own numbers
  unsigned package_count = 1;  // physical package numbers are below this
};

// A file of sysfs below a processor's directory: its path ("topology/core_id") and text.
using CpuFiles = std::vector<std::pair<std::string, std::string>>;

class ClusterFacts {
 public:
  // `cpu_directory`: sysfs' devices/system/cpu. `own_cpus`: this node's processors.
  ClusterFacts(NodeContext& node, PlainFiles cpu_directory, CpuNumbers own_cpus);
  ~ClusterFacts();
  ClusterFacts(const ClusterFacts&) = delete;
  ClusterFacts& operator=(const ClusterFacts&) = delete;

  const NodeFacts& own() const;
  // Runs `ready` once every living node has answered; at once when all are known.
  void when_known(std::function<void()> ready);

  // The rest: of the nodes known so far.
  CpuPlaces places(NodeId node) const;
  // One after the last processor of the cluster.
  unsigned cpu_count() const;
  // The node that has this processor of the cluster; kNoNode when none has.
  NodeId node_of_cpu(unsigned cluster_cpu) const;
  // What makes another node's stat texts this node's.
  StatShift shift_from(NodeId node) const;

  // Topology and caches of one processor by its node's own number, as that node has them.
  void cpu_files(NodeId node, unsigned local_cpu,
                 std::function<void(Result<std::shared_ptr<const CpuFiles>>)> done);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // answers that come late hold it weakly
};

}  // namespace krg
