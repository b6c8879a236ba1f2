// LoadBook: what one node knows about the load of all nodes, and the choice it makes from that.
// Pure: the time comes from outside. Owned by LeastLoaded; the loop's thread.
//
// A node's load is its last report (running processes at the time of the sample) corrected by this
// node's own placements: one that came after the sample counts as one more, one that was running at
// the sample and has ended since counts as one less. Reports older than kReportLifetime say
// nothing.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "krg/runtime/types.h"

namespace krg {

class LoadBook {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::milliseconds kReportLifetime{2000};
  // How long a placed process takes until a sample on its node shows it as running.
  static constexpr std::chrono::milliseconds kSettleTime{50};

  // REQUIRES: self < nodes.
  LoadBook(NodeId self, unsigned nodes);

  void set_report(NodeId node, unsigned running, unsigned cores, Time sampled);
  // Chooses among the online nodes and counts `child` there. Without any node online: self.
  NodeId choose(GlobalPid child, const std::function<bool(NodeId)>& is_online, Time now);
  void ended(GlobalPid child);
  // What was chosen for `before` is for `child`.
  void becomes(GlobalPid before, GlobalPid child);
  // Among the online nodes whose report is fresh: see Placement::relief().
  std::optional<NodeId> relief(double gap, const std::function<bool(NodeId)>& is_online,
                               Time now) const;
  // Load per core, as choose() compares it.
  double load(NodeId node, Time now) const;

 private:
  struct Node {
    unsigned running = 0;
    unsigned cores = 1;
    Time sampled{};
    unsigned unseen = 0;       // own placements that the last report cannot have seen
    unsigned ended_since = 0;  // own placements that it may have seen and that have ended
  };
  struct Placed {
    NodeId node;
    Time since;
    bool seen = false;
  };

  NodeId self_;
  std::vector<Node> nodes_;
  std::unordered_map<GlobalPid, Placed> placed_;
  unsigned turn_ = 0;  // where the search among equally loaded nodes starts
};

}  // namespace krg
