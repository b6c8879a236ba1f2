// SPDX-License-Identifier: GPL-2.0-or-later
#include "identity_rules.h"

namespace krg {

GroupAnswer group_answer(const GroupChange& change, const PidRange& pids) {
  if (change.is_body)
    return change.is_caller ? GroupAnswer::kAtShadow : GroupAnswer::kNoSuchProcess;
  // A parent may only move a child that has not run exec: that child is on the parent's node.
  if (!change.is_of_this_node) return GroupAnswer::kNoSuchProcess;
  if (change.is_stray || pids.is_local(GlobalPid{change.wanted})) return GroupAnswer::kNative;
  if (change.wanted == change.virtual_group) return GroupAnswer::kDone;
  if (change.wanted == change.wanted_leader_group) return GroupAnswer::kNative;
  return GroupAnswer::kRefused;
}

}  // namespace krg
