// FamilyBodies: members of a family that is restarted whose place is here and who are to execute on
// other nodes: each is made a body of its image there, without contents of pages yet, and its place
// here becomes a shadow. None runs before thaw().
//
// Threads: the loop's thread. Owned by FamilyInstaller. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "image/frozen_process.h"
#include "image/moved_process.h"
#include "image/process_image.h"
#include "krg/procmgr/family_installer.h"

namespace krg {

class FamilyBodies : public std::enable_shared_from_this<FamilyBodies> {
 public:
  explicit FamilyBodies(const FamilyInstaller::Parts& parts) : parts_(parts) {}

  // `process` has the member's descriptors and place. `exported` runs when they have been looked
  // at; of `moved` neither pages nor a move are needed. Errors: what the other node says; the
  // process is as it was then.
  void start(std::shared_ptr<FrozenProcess> process, const FamilyMember& member, MovedProcess moved,
             NodeId to, bool has_children, std::function<void()> exported,
             std::function<void(Status)> done);
  // All run.
  void thaw();
  // All are killed.
  void kill_all();

 private:
  struct Start;
  void ask(const std::shared_ptr<Start>& start);
  void leave_shadow(const std::shared_ptr<Start>& start);

  const FamilyInstaller::Parts parts_;
  std::map<pid_t, NodeId> started_;
};

}  // namespace krg
