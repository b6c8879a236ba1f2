// Event descriptors (event_fds.h) of a family that is restarted: epoll instances watch again what
// they watched, by the numbers by which they did.
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>

#include "event_fds.h"
#include "image/frozen_process.h"
#include "krg/procmgr/process_family.h"

namespace krg {

inline bool is_event_of(const FamilyFile& file, EventKind kind) {
  return file.kind == FamilyFile::Kind::kEvent && file.pipe == static_cast<uint32_t>(kind);
}

// All are added by a process that has both descriptors, parents first, as far as there is one: who
// adds a signalfd is whose signals are waited for. `process`: of a member that has not ended and
// has all of the family's files from descriptor `first_slot` on. Errors: of epoll_ctl(2).
Status add_watches(const ProcessFamily& family, int first_slot,
                   const std::function<FrozenProcess&(uint32_t member)>& process);

// One more than the highest number by which a descriptor is watched.
int after_watched_numbers(const ProcessFamily& family);

// Whether they can all be had on another node: no other member has one of them, what is watched is
// the member's, and there are no inotify instances and pidfds.
bool may_go_with_events(const ProcessFamily& family, const FamilyMember& member);

}  // namespace krg
