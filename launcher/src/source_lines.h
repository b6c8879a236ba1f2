// Where in its source a program has what stands at an address of its file, as addr2line(1) tells by
// the debug information that is there. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace krg {

// Adds "line" ("main.c:42") to the places in code of the parallel regions of `processes` (procmgr's
// SpreadStatistics::report), and to the memory that the program allocated, whose program
// has debug information, where addr2line is installed.
void add_source_lines(nlohmann::json& processes);

}  // namespace krg
