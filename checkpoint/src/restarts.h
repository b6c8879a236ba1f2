// Restarts: the restart.* commands of Checkpoints. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/checkpoint/checkpoints.h"

namespace krg {

// Returns what tells whether a process is of a family that is being restarted. REQUIRES: what
// `parts` refers to, and they, outlive the control server's commands.
// `give_data`: called with the root of one that runs again, and its data (VersionInfo::user_data).
std::function<bool(pid_t)> add_restart_commands(const Checkpoints::Parts& parts,
                                                std::function<void(pid_t, uint64_t)> give_data);

}  // namespace krg
