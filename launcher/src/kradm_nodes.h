// `kradm nodes`: `status [--json]` shows the nodes of the cluster and their hardware
// (node_inventory.h); `add` and `del` are in kradm_nodes_change.h.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

namespace krg {

// Exit status: 0; 1 when there is no cluster or it does not answer; 2 for wrong arguments (those
// after `nodes`).
int kradm_nodes(std::span<const std::string> arguments);

// What it prints for the "nodes" that krgd answered; for tests.
std::string format_nodes(const nlohmann::json& nodes);

}  // namespace krg
