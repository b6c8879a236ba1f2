// Restarts: the restart.* commands of Checkpoints. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/checkpoint/checkpoints.h"

namespace krg {

// Returns what tells whether a process is of a family that is being restarted. REQUIRES: what
// `parts` refers to, and they, outlive the control server's commands.
std::function<bool(pid_t)> add_restart_commands(const Checkpoints::Parts& parts);

}  // namespace krg
