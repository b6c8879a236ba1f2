// `kradm nodes add|del {-n LIST | -c COUNT | -t TOTAL | -a}`: nodes join and leave the single
// system. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <span>
#include <string>

namespace krg {

enum class NodeChange { kAdd, kDelete };

// `arguments`: those after `add` or `del`. Exit status: 0 when the nodes are in or out and, out,
// have no process left; 1 when not; 2 for wrong arguments.
int kradm_change_nodes(NodeChange change, std::span<const std::string> arguments);

}  // namespace krg
