// ManagerRing: which living node manages an object. Each object has a slot, a node's number; its
// manager is the first living node from there upwards, its mirror the next one after that: the node
// that becomes the manager when the manager dies. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <vector>

#include "krg/runtime/types.h"

namespace krg::kddm {

class ManagerRing {
 public:
  explicit ManagerRing(unsigned nodes) : dead_(nodes, false) {}

  void set_dead(NodeId node) { dead_.at(node.value) = true; }
  bool is_dead(NodeId node) const { return dead_.at(node.value); }
  unsigned size() const { return static_cast<unsigned>(dead_.size()); }
  NodeId manager(uint16_t slot) const { return first_living(slot); }
  // This node alone alive: the manager itself.
  NodeId mirror(uint16_t slot) const { return first_living(first_living(slot).value + 1u); }

 private:
  NodeId first_living(unsigned from) const {
    const unsigned count = size();
    for (unsigned i = 0; i < count; ++i) {
      const unsigned node = (from + i) % count;
      if (!dead_[node]) return NodeId{static_cast<uint16_t>(node)};
    }
    return kNoNode;
  }
  std::vector<bool> dead_;
};

}  // namespace krg::kddm
