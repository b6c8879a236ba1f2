// The sums that /proc shows for the cluster: each function takes the same file of several nodes and
// makes the one text that a machine with all their processors and memory would show. Pure: no I/O.
// A node's text may lack fields or be empty; numbers that are not understood are left out.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cpu_numbers.h"

namespace krg {

// One node's contribution.
struct NodeText {
  std::string text;
  CpuPlaces cpus;
  bool is_here = false;  // the node whose program asks: decides what cannot be summed
};

// Processors renumbered, packages kept apart; what stands after the processors (some architectures)
// is this node's.
std::string sum_cpuinfo(const std::vector<NodeText>& nodes);
// Every "Key: number [kB]" summed, but page sizes and address space. Keys in this node's order.
std::string sum_meminfo(const std::vector<NodeText>& nodes);
// Counters summed, cpuN lines renumbered, btime of this node.
std::string sum_stat(const std::vector<NodeText>& nodes);
// Loads and counts of processes summed; the last pid is this node's.
std::string sum_loadavg(const std::vector<NodeText>& nodes);
// Up time of this node (start times are counted from it), idle time summed.
std::string sum_uptime(const std::vector<NodeText>& nodes);
// Every "key number" summed. Keys in this node's order.
std::string sum_vmstat(const std::vector<NodeText>& nodes);

// What one node shows of itself: only those of its processors that the cluster shows, under its own
// numbers.
std::string own_cpuinfo(const NodeText& node);
std::string own_stat(const NodeText& node);

}  // namespace krg
