// `kradm kddm [--json]`: what the KDDM sets of the cluster hold and have done.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

namespace krg {

// Exit status: 0; 1 when there is no cluster or it does not answer; 2 for wrong arguments.
int kradm_kddm(std::span<const std::string> arguments);

// What it prints for the "nodes" that krgd answered (kddm_report.h); for tests.
std::string format_kddm(const nlohmann::json& nodes);

}  // namespace krg
