// VirtualMachineRoom: where virtual nodes stand: an outer PID and mount namespace (an ordinary
// user's: and user namespace), the network between the nodes, and mpirun, which starts krgd_boot on
// each as it would on machines: its agent enters node i's network namespace where ssh would log in
// to it.
//
// Owned by krg_host. Single-threaded but for the short-lived threads that make namespaces.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "krg/runtime/result.h"

namespace krg {

class VirtualMachineRoom {
 public:
  struct Options {
    unsigned nodes = 1;
    std::string cluster_dir;
    unsigned processors_per_node = 0;  // of its own; 0: all nodes have all
    bool own_network = true;           // false: the nodes share the caller's network, on 127.0.0.1
  };

  // Moves this process into the room's user namespace if it needs one, and its children into the
  // PID namespace.
  static Result<VirtualMachineRoom> make_namespaces(const Options& options);

  // The life of the room's init: mounts, network, nodes; ends when no process is left.
  // `parent_pipe`: the write end of a pipe that only the parent reads. Returns the exit status: 0
  // when the nodes came up and later ended.
  int run_init(int parent_pipe);

  // Replaces this process by a shell that runs the words of `command` on the node with `address`.
  static Status exec_on_node(const std::string& address, char** command);

 private:
  explicit VirtualMachineRoom(Options options) : options_(std::move(options)) {}
  Status prepare();
  Status make_network();
  Status add_host_names() const;
  std::vector<std::string> launch_command() const;
  std::vector<std::string> launch_environment() const;
  Result<pid_t> start(const std::vector<std::string>& command) const;
  Options options_;
  std::string
      private_dir_;  // a tmpfs that only the room sees: mpirun's files, the network namespaces
};

}  // namespace krg
