// SPDX-License-Identifier: GPL-2.0-or-later
#include "load_book.h"

#include "krg/runtime/check.h"

namespace krg {

LoadBook::LoadBook(NodeId self, unsigned nodes) : self_(self), nodes_(nodes) {
  check(self.value < nodes, "this node is one of the nodes");
}

void LoadBook::set_report(NodeId id, unsigned running, unsigned cores, Time sampled) {
  if (id.value >= nodes_.size() || sampled < nodes_[id.value].sampled) return;
  Node& node = nodes_[id.value];
  node = {.running = running, .cores = cores ? cores : 1, .sampled = sampled};
  for (auto it = placed_.begin(); it != placed_.end();) {
    Placed& placed = it->second;
    if (placed.node != id) {
      ++it;
      continue;
    }
    placed.seen = sampled - placed.since >= kSettleTime;
    if (!placed.seen) ++node.unseen;
    // Nobody tells when a process that stayed here ends: once the samples show it, they suffice.
    it = placed.seen && id == self_ ? placed_.erase(it) : std::next(it);
  }
}

NodeId LoadBook::choose(GlobalPid child, const std::function<bool(NodeId)>& is_online, Time now) {
  ended(child);
  NodeId best = self_;
  bool found = is_online(self_);
  double least = found ? load(self_, now) : 0;
  for (unsigned i = 0; i < nodes_.size(); ++i) {
    NodeId candidate{static_cast<uint16_t>((turn_ + i) % nodes_.size())};
    if (candidate == self_ || !is_online(candidate)) continue;
    double candidate_load = load(candidate, now);
    if (found && candidate_load >= least) continue;
    best = candidate;
    least = candidate_load;
    found = true;
  }
  if (best != self_) turn_ = (best.value + 1u) % static_cast<unsigned>(nodes_.size());
  placed_[child] = {.node = best, .since = now};
  ++nodes_[best.value].unseen;
  return best;
}

void LoadBook::ended(GlobalPid child) {
  auto it = placed_.find(child);
  if (it == placed_.end()) return;
  Node& node = nodes_[it->second.node.value];
  if (it->second.seen) {
    ++node.ended_since;
  } else {
    --node.unseen;
  }
  placed_.erase(it);
}

void LoadBook::becomes(GlobalPid before, GlobalPid child) {
  auto placed = placed_.extract(before);
  if (placed.empty()) return;
  ended(child);
  placed.key() = child;
  placed_.insert(std::move(placed));
}

std::optional<NodeId> LoadBook::relief(double gap, const std::function<bool(NodeId)>& is_online,
                                       Time now) const {
  std::optional<NodeId> best;
  double least = load(self_, now) - gap;
  for (uint16_t i = 0; i < nodes_.size(); ++i) {
    const NodeId id{i};
    if (id == self_ || !is_online(id) || now - nodes_[i].sampled >= kReportLifetime) continue;
    const double with_one_more = load(id, now) + 1.0 / nodes_[i].cores;
    // By a hair: loads are sums of fractions.
    if (with_one_more > least + 1e-9 || (best && with_one_more >= least)) continue;
    best = id;
    least = with_one_more;
  }
  return best;
}

double LoadBook::load(NodeId id, Time now) const {
  const Node& node = nodes_[id.value];
  unsigned running = now - node.sampled < kReportLifetime ? node.running : 0;
  running = running > node.ended_since ? running - node.ended_since : 0;
  return static_cast<double>(running + node.unseen) / node.cores;
}

}  // namespace krg
