// Lists of nodes as the original's tools take them, and which nodes a count means.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string_view>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"

namespace krg {

// "3", "1-4" or "1:4" (both ends included), joined by commas; in order, each node once. Errors: one
// sentence; a node of `node_count` or above is one.
Result<std::vector<NodeId>> parse_node_list(std::string_view text, unsigned node_count);

// Which nodes `kradm nodes add` or `del` means. Node 0 is never one to leave.
struct NodeSelection {
  enum class Kind { kListed, kCount, kTotal, kAll };
  Kind kind = Kind::kListed;
  std::vector<NodeId> listed;
  unsigned number = 0;  // kCount: so many nodes; kTotal: so many are online afterwards
};

// The nodes that are to change: the lowest come first, the highest leave first; those listed as
// they are. `online`, `present`: the nodes of the cluster by state, ascending. Errors: there are
// not so many.
Result<std::vector<NodeId>> nodes_to_add(const NodeSelection& selection,
                                         const std::vector<NodeId>& online,
                                         const std::vector<NodeId>& present);
Result<std::vector<NodeId>> nodes_to_remove(const NodeSelection& selection,
                                            const std::vector<NodeId>& online);

}  // namespace krg
