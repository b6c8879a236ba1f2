// setpgid(2) in the cluster: a pure decision, made from what the caller's node knows.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include "krg/procmgr/pid_range.h"

namespace krg {

// What is known about the process that setpgid names.
struct GroupChange {
  bool is_caller = false;       // the caller names itself
  bool is_body = false;         // it is a body of this node
  bool is_of_this_node = true;  // born here (native or a shadow)
  pid_t wanted = 0;             // the group to join or, when its own pid, to found
  bool is_stray = false;        // `wanted` is led by a process that was restarted on this node
  pid_t virtual_group = 0;      // the group that it is told to be in now
  // The virtual group of the body that leads the kernel group `wanted` on this node; 0 for none.
  pid_t wanted_leader_group = 0;
};

enum class GroupAnswer {
  kNative,    // the kernel knows all that matters
  kAtShadow,  // the shadow changes its group
  kDone,      // nothing to change
  kNoSuchProcess,
  kRefused,
};

GroupAnswer group_answer(const GroupChange& change, const PidRange& pids);

}  // namespace krg
