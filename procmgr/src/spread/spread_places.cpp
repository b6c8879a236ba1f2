// SpreadProcess: where the threads of one that was spread before run again.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <utility>

#include "image/known_mappings.h"
#include "spread/spread_again.h"
#include "spread/spread_process.h"

namespace krg {
namespace {

// Neighbours in their team are neighbours; threads of none come last.
std::vector<pid_t> in_order(const std::vector<pid_t>& tids, const std::vector<pid_t>& team) {
  std::vector<pid_t> order;
  for (pid_t tid : team)
    if (std::find(tids.begin(), tids.end(), tid) != tids.end()) order.push_back(tid);
  for (pid_t tid : tids)
    if (std::find(order.begin(), order.end(), tid) == order.end()) order.push_back(tid);
  return order;
}

}  // namespace

// On as many nodes as before each where it was; else the same number on each node. The main thread
// is at home.
std::map<pid_t, NodeId> SpreadProcess::places_again(const std::vector<pid_t>& tids,
                                                    const SpreadAgain& again) const {
  std::vector<NodeId> nodes = {parts_.node.self};
  nodes.insert(nodes.end(), parts_.nodes.begin(), parts_.nodes.end());
  std::map<pid_t, NodeId> places;
  const auto is_there = [&](NodeId node) {
    return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
  };
  const std::vector<pid_t> order = in_order(tids, teams_.largest_team());
  for (size_t i = 0; i < order.size(); ++i) {
    const auto was = again.places.find(order[i]);
    const bool goes_back =
        again.nodes == nodes.size() && was != again.places.end() && is_there(was->second);
    places[order[i]] = goes_back ? was->second : nodes[i * nodes.size() / order.size()];
  }
  places[parts_.pid] = parts_.node.self;
  return places;
}

}  // namespace krg
