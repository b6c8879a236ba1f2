// Pidfds (pidfd_open(2)) of a family: of members, which have the same pids after a restart, or of
// processes that have ended and been waited for.
//
// Threads: open_pidfds(): the loop's; the others: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "image/frozen_process.h"
#include "krg/procmgr/process_family.h"
#include "process_fds.h"

namespace krg {

// Of `pidfd`, its copy being krgd's. `members`: of the whole family. Errors: ENOTSUP: of a thread,
// or a process that is none of them. Threads: any.
Result<std::string> describe_pidfd(const StolenFd& pidfd, const std::set<pid_t>& members);

// One of a process that has ended; of a member: what open_pidfds() replaces. Errors: EPROTO; of
// clone(2).
Result<UniqueFd> make_pidfd(const FamilyFile& file);

// Members that have not ended open those of members for themselves, in the places that the family's
// files have from descriptor `first_slot` on. REQUIRES: all members are there. Threads: the
// loop's. Errors: of pidfd_open(2).
Status open_pidfds(const ProcessFamily& family, int first_slot,
                   const std::function<FrozenProcess&(uint32_t member)>& process);

}  // namespace krg
