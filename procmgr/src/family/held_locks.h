// The locks that a process holds by one of its descriptors. Source: fdinfo, proc(5).
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <vector>

#include "krg/procmgr/process_family.h"

namespace krg {

struct HeldLocks {
  uint32_t flock = 0;                      // LOCK_SH, LOCK_EX; 0: none
  std::vector<FamilyLock> of_process;      // F_SETLK
  std::vector<FamilyLock> of_description;  // F_OFD_SETLK
  std::string other;                       // a kind that is not kept; empty: none
};

// `file`: what they are told to be of.
HeldLocks held_locks(pid_t pid, int fd, uint32_t file);

}  // namespace krg
