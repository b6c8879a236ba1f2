// ClusterControl: the cluster's life as a whole: node 0 learns when every node is ready, the
// cluster is shut down in order, and the death of node 0 ends every node. Commands: cluster.status,
// cluster.shutdown, cluster.own.
//
// `boot socket`: where krgrun or kradm waits for a cluster that it starts. Node 0 connects to it
// and sends {"ready": true}; while an owner (krgrun) lives it keeps its end open, and when it
// closes without a word the cluster is shut down.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <set>
#include <string>

#include "job_table.h"
#include "krg/runtime/control_server.h"

namespace krg {

class ClusterControl {
 public:
  ClusterControl(NodeContext& node, ControlServer& control, JobTable& jobs,
                 std::string cluster_dir);
  ClusterControl(const ClusterControl&) = delete;
  ClusterControl& operator=(const ClusterControl&) = delete;

  // This node's session is ready. When all are, node 0 reports it to the boot socket.
  void node_is_ready();
  // Ends the whole cluster, from any node: all nodes' krgd exit.
  void shut_down(std::string_view why);
  // Ends this node alone.
  void leave(std::string_view why);

 private:
  void count_ready(NodeId node);
  void report_ready();
  void watch_owner();
  void peer_failed(NodeId peer);

  NodeContext& node_;
  JobTable& jobs_;
  const std::string cluster_dir_;
  std::set<NodeId> ready_;
  UniqueFd owner_;
  EventLoop::Watch owner_watch_;
  EventLoop::Timer last_resort_;
  bool shutting_down_ = false;
};

}  // namespace krg
