// What krgrun --stats prints of processes whose threads were on several nodes.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace krg {

// `processes`: as krgd tells them (procmgr's SpreadStatistics::report).
std::string format_spread_report(const nlohmann::json& processes);

}  // namespace krg
