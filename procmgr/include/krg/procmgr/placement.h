// Placement: on which node a process starts. The policy is a seam: least-loaded is the first one,
// the scheduler brings others. choose() answers at once from what this node knows; it never waits
// for a message.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "krg/procmgr/node_context.h"

namespace krg {

class Placement {
 public:
  virtual ~Placement() = default;
  // The node on which `child`, about to exec here, is to start: an online one, this node included.
  // The choice counts as load of that node from now on.
  virtual NodeId choose(GlobalPid child) = 0;
  // The child that choose() sent elsewhere has ended there, or could not be started there after
  // all. A pid that is not known is no error.
  virtual void ended(GlobalPid child) = 0;
  // What choose() said for `before` is for `child`: a forker, whose child was yet to be made.
  virtual void becomes(GlobalPid before, GlobalPid child) = 0;
  // The online node that would, with one process more, have the least load per core, if that is
  // lower by `gap` than this node's. Nothing is known before it was asked for a while.
  virtual std::optional<NodeId> relief(double gap) = 0;
};

// What least-loaded asks of its surroundings.
struct LoadSources {
  // Whether new processes may start on a node (present, online, not failed).
  std::function<bool(NodeId)> is_online;
  // How many session processes of this node run or wait for a core now (count_running_processes).
  std::function<unsigned()> running;
  unsigned cores = 1;  // that this node's processes may use
  // The exchange of loads: how often, and how long after the last placement it goes on.
  std::chrono::milliseconds exchange_period{100}, exchange_lifetime{1000};
};

// The node with the least load per core; load = running processes + placements on their way.
// Ties: this node first, then the others in turn. Nodes tell each other their loads a few times a
// second, only while processes are being placed: an idle cluster exchanges nothing.
std::unique_ptr<Placement> make_least_loaded(NodeContext& node, LoadSources sources);

// Session processes of this PID namespace in state R or D, without krgd itself (pid 1): one read of
// each /proc/PID/stat.
unsigned count_running_processes();
// Cores that this process may run on (sched_getaffinity(2)).
unsigned usable_cores();

}  // namespace krg
