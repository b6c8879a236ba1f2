// Restarts: the restart.* commands of Checkpoints. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/checkpoint/checkpoints.h"

namespace krg {

// REQUIRES: what `parts` refers to outlives the control server's commands.
void add_restart_commands(const Checkpoints::Parts& parts);

}  // namespace krg
