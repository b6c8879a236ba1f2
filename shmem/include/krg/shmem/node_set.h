// NodeSet: a small set of nodes, ordered; copysets are mostly of a few nodes, so it is a sorted
// vector. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>
#include <vector>

#include "krg/runtime/types.h"

namespace krg {

class NodeSet {
 public:
  bool contains(NodeId node) const {
    return std::binary_search(nodes_.begin(), nodes_.end(), node);
  }
  void insert(NodeId node) {
    auto at = std::lower_bound(nodes_.begin(), nodes_.end(), node);
    if (at == nodes_.end() || *at != node) nodes_.insert(at, node);
  }
  void erase(NodeId node) {
    auto at = std::lower_bound(nodes_.begin(), nodes_.end(), node);
    if (at != nodes_.end() && *at == node) nodes_.erase(at);
  }
  void clear() { nodes_.clear(); }
  bool empty() const { return nodes_.empty(); }
  size_t size() const { return nodes_.size(); }
  auto begin() const { return nodes_.begin(); }
  auto end() const { return nodes_.end(); }
  bool operator==(const NodeSet&) const = default;

 private:
  std::vector<NodeId> nodes_;
};

}  // namespace krg
