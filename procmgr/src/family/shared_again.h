// share_again(): memory of one kernel that members of a family shared is the nodes' when it is
// restarted where nodes share memory, so that members may go to others. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <set>

#include "krg/procmgr/process_family.h"

namespace krg {

// Tells which members have some of it: their pages do not all come late. Images, open files and
// segments of `family` lead to its `memories` then. Pages stay with the members that have them.
// Memory that a descriptor leads to and that has no name stays a kernel's. Errors: EBADMSG.
Result<std::set<pid_t>> share_again(ProcessFamily& family);

}  // namespace krg
