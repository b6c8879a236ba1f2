// Entering namespaces of one's own as an ordinary user would, for probes in a child process.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "check/finding.h"
#include "krg/runtime/result.h"

namespace krg {

// Makes the calling process root of a user namespace of its own, with further namespaces
// (`clone_flags`: CLONE_NEWPID, ...). Root becomes nobody first, so that what works afterwards
// works for every user. Cannot be undone: call it in a child.
Status enter_own_namespaces(int clone_flags);

// Runs `probe` as pid 1 of a PID namespace of its own that has its own /proc, inside a user and a
// mount namespace. REQUIRES: called in a child (it enters the namespaces itself).
Finding run_as_first_process(const std::function<Finding()>& probe);

}  // namespace krg
