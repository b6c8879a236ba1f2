// `kradm check [--json]`: what this machine has of what we build on (check/probes.h).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "check/probes.h"

namespace krg {

// Runs every probe and prints a table, or JSON. Exit status: 0 when nothing required is lacking,
// else 1; 2 for wrong arguments (those after `check`).
int kradm_check(std::span<const std::string> arguments);

// The parts of it, for tests. A report names each probe's state and, unless it is ok, what suffers
// and the line that mends it.
nlohmann::json check_report(std::span<const Probe> probes);
std::string format_check_report(const nlohmann::json& report);
bool lacks_required(const nlohmann::json& report);

}  // namespace krg
