// Files of /proc/PID of a family's own members that its members have open: they are opened again
// when the processes are there. Threads: the loop's.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "image/frozen_process.h"
#include "krg/procmgr/process_family.h"

namespace krg {

bool is_proc_file_of_member(const ProcessFamily& family, const FamilyFile& file);

// What has its place until then.
Result<UniqueFd> make_proc_stand_in();

// `process`, which is `member`, opens what it has of those, at the same descriptors; each member
// has a description of its own. REQUIRES: its descriptors are in their places, all members and
// their threads are there. Errors: of open(2).
Status open_proc_files(const ProcessFamily& family, const FamilyMember& member,
                       FrozenProcess& process);

}  // namespace krg
