// ClusterView: the system calls that tell how big the machine is tell it of the cluster:
// sched_getaffinity (hence nproc and the number of threads of an OpenMP program) and sysinfo.
// A process that has SEE_LOCAL_PROC_STAT sees its node.
//
// The cluster's processors are numbered node after node (NodeResources). A thread that may run on
// all processors of its node is told all of the cluster's; one that has been restricted, those
// of its node that it has, by their cluster-wide numbers, which sched_setaffinity takes back. A
// process that asks for processors of another node only goes there, where it may (CAN_MIGRATE).
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>

#include "krg/procmgr/node_resources.h"
#include "krg/procmgr/pid_calls.h"

namespace krg {

class ClusterView {
 public:
  // `sees_node_only`: whether a process has SEE_LOCAL_PROC_STAT.
  ClusterView(NodeContext& node, SyscallBroker& broker, ProcessTable& table, PidCalls& pid_calls,
              NodeResources& resources, std::function<bool(pid_t)> sees_node_only);
  ~ClusterView();
  // Of processes on several nodes.
  struct Spread {
    // The processors, by the cluster's numbers, that a thread is bound to, perhaps on another node;
    // nothing: the kernel of this node knows.
    std::function<std::optional<std::set<unsigned>>(pid_t tid)> bound;
    // Whether a process is about to become one.
    std::function<bool(pid_t pid)> is_starting;
  };
  void set_spread(Spread spread);
  // Moves a process to another node, as Migration::migrate().
  using Move = std::function<void(GlobalPid pid, NodeId target, std::function<void(Status)> done)>;
  void set_move(Move move);
  ClusterView(const ClusterView&) = delete;
  ClusterView& operator=(const ClusterView&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
