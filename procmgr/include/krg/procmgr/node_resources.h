// NodeResources: what each node has (processors, memory, swap) and how busy it is (loads,
// processes, uptime), so that every node can answer with the cluster's sums. A node measures itself
// when it is asked; answers are kept and serve again until they are older than the asker accepts. A
// node that has failed is left out.
//
// Processors of the cluster are numbered node after node: node 0's first. A virtual node that was
// given processors of its own counts those, any other counts the machine's; memory is the
// machine's.
//
// Threads: the loop's thread. Owned by krgd's main. Source: sysinfo(2), sched_getaffinity(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "krg/procmgr/node_context.h"

namespace krg {

// One node's figures; travels in messages.
struct NodeFigures {
  uint8_t version = 1;
  uint8_t padding[3] = {};
  uint32_t processors = 0;
  uint64_t memory_bytes = 0, free_bytes = 0, available_bytes = 0, shared_bytes = 0;
  uint64_t buffer_bytes = 0, cached_bytes = 0;
  uint64_t swap_bytes = 0, free_swap_bytes = 0;
  double load_1min = 0, load_5min = 0, load_15min = 0;
  double uptime_s = 0, idle_s = 0;      // idle: summed over the machine's processors
  uint32_t processes = 0, running = 0;  // of the session on that node, shadows and krgd included
};
static_assert(sizeof(NodeFigures) == 120);

struct NodeReport {
  NodeId node;
  NodeFigures figures;
};

// The cluster in one line.
NodeFigures sum_of(const std::vector<NodeReport>& reports);

class NodeResources {
 public:
  explicit NodeResources(NodeContext& node);
  ~NodeResources();
  NodeResources(const NodeResources&) = delete;
  NodeResources& operator=(const NodeResources&) = delete;

  // Asks every node once, so that processors are known before the first program asks for them.
  void start();
  // Every living node's figures in the order of the nodes, none older than `max_age`; a node that
  // does not answer is left out. `done` runs once, inside this call when the figures are there.
  void get(std::chrono::milliseconds max_age,
           std::function<void(const std::vector<NodeReport>&)> done);
  // The latest figures that came in, however old.
  std::vector<NodeReport> known() const;

  // This node's processors, as it found them at start (ascending kernel numbers).
  const std::vector<unsigned>& own_processors() const;
  // The cluster's number of this node's first processor, and how many the living nodes have
  // together, as far as they have been heard of.
  unsigned first_processor() const;
  unsigned total_processors() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with answers under way
};

}  // namespace krg
