// ClusterStarter: brings a cluster up for krgrun or kradm, and takes it down. Owned clusters end
// with this object, and by the kernel's hand when the process dies.
//
// Threads: one.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "child_process.h"
#include "krg/runtime/control_client.h"
#include "krg/runtime/result.h"
#include "state_dir.h"

namespace krg {

struct ClusterPlan {
  std::string name;  // of the folder under STATE
  unsigned nodes = 1;
  unsigned processors_per_node = 0;  // of its own; 0: all nodes have all
  bool own_network = true;
  bool outlives_caller = false;
  std::chrono::seconds start_limit{60};
};

class RunningCluster {
 public:
  // Starts virtual nodes and waits until all are ready. Errors: one sentence, also when the
  // machine has too few processors; what the nodes said
  // goes to stderr.
  static Result<RunningCluster> start_virtual(const ClusterPlan& plan);

  // Starts the ranks by an MPI launcher (srun, mpirun) and waits until all are ready. This machine
  // must be the first rank's. `dir` is the cluster's folder, the same on all machines.
  static Result<RunningCluster> start_ranks(ClusterDir dir, std::vector<std::string> command,
                                            std::chrono::seconds start_limit);

  // The control socket of the node that programs start on.
  std::string control_path() const { return control_socket_path(dir_.path(), NodeId{0}); }
  const std::string& path() const { return dir_.path(); }
  // Lets it live on without this process. REQUIRES: planned to outlive its caller.
  void keep_running();
  // Shuts it down in order and waits until nothing is left; by force when that takes too long.
  void stop();

  RunningCluster(RunningCluster&&) noexcept = default;
  RunningCluster& operator=(RunningCluster&&) = delete;
  ~RunningCluster();

 private:
  RunningCluster(ClusterDir dir) : dir_(std::move(dir)) {}
  Status wait_until_ready(std::chrono::seconds limit);
  Status listen_for_ready();
  Status await_owner_socket(std::chrono::seconds limit);
  void print_logs() const;

  ClusterDir dir_;
  std::string log_;  // what the launcher prints
  std::optional<ChildProcess> host_;
  UniqueFd lifeline_;  // krg_host ends when it closes
  UniqueFd owner_;     // node 0's krgd likewise
  UniqueFd listener_;
};

// Tells the cluster behind `control_path` to end; true when it said that it will.
bool ask_to_shut_down(const std::string& control_path);

}  // namespace krg
