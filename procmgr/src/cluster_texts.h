// ClusterTexts: the files of /proc that tell about the machine, for the cluster or for one node:
// fetches the nodes' own texts and adds them up (proc_sums.h).
//
// Threads: the loop's thread. Owned by ProcView.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "alive.h"
#include "cluster_facts.h"
#include "node_files.h"

namespace krg {

enum class MachineText : unsigned { kCpuinfo, kMeminfo, kStat, kLoadavg, kUptime, kVmstat };
inline constexpr std::array<std::string_view, 6> kMachineTextNames{"cpuinfo", "meminfo", "stat",
                                                                   "loadavg", "uptime",  "vmstat"};
std::optional<MachineText> machine_text(std::string_view name);

class ClusterTexts {
 public:
  using Done = std::function<void(Result<std::string>)>;

  ClusterTexts(NodeContext& node, NodeFiles& files, ClusterFacts& facts)
      : node_(node), files_(files), facts_(facts) {}

  // The sum over the living nodes; what cannot be summed is this node's.
  void of_cluster(MachineText what, Done done);
  // What one node has, under its own numbers. Error: EHOSTDOWN.
  void of_node(MachineText what, NodeId node, Done done);

 private:
  using Clock = std::chrono::steady_clock;
  struct Kept {
    Clock::time_point asked;
    std::string text;
  };
  void fetch(MachineText what, NodeId node, Done done);

  NodeContext& node_;
  NodeFiles& files_;
  ClusterFacts& facts_;
  std::map<std::pair<NodeId, MachineText>, Kept> kept_;
  Alive alive_;
};

}  // namespace krg
