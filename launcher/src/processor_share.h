// The processors of this machine that one virtual node has for itself (krgrun -c).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include "krg/runtime/result.h"

namespace krg {

// Errors: a sentence when this process may not use enough processors for so many nodes.
Status check_processor_shares(unsigned nodes, unsigned processors_per_node);

// Binds this process, and what it starts from now on, to the share of node `rank`: of the
// processors that it may use, in the order of their numbers. Errors: there are not enough.
Status take_processor_share(unsigned rank, unsigned processors_per_node);

// Binds this process to those of its processors that `pid` may use; to all of those where it has
// none in common with it.
Status share_processors_of(pid_t pid);

}  // namespace krg
