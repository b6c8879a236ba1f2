// LateMembers: members of restarted families that run while their pages are still to come out of
// the checkpoint (krgrun --lazy). What cannot be read then ends the whole family.
//
// Threads: the loop's thread. Owned by the restarts' commands (restarts.cpp).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "krg/procmgr/family_installer.h"
#include "krg/procmgr/page_moves.h"
#include "krg/runtime/control_server.h"
#include "late_pages.h"

namespace krg {

class LateMembers : public std::enable_shared_from_this<LateMembers> {
 public:
  // `pages`: null: there are none.
  LateMembers(NodeContext& node, ControlServer& control, PageMoves* pages)
      : node_(node), control_(control), pages_(pages) {}

  // Errors: why all pages are loaded before a process runs here.
  Status can_come_later() const;

  struct Restarted {
    ControlServer::ConnectionId connection;  // who is told: krgrun
    const VersionInfo& info;
    SharedParts parts;
    FamilyInstaller& installer;  // laid out, with late pages
  };
  // Brings the pages of those members that can run meanwhile; their pids. `may_run` is called once
  // for each, from the loop, when what it needs at once is there. Notices to the connection, after
  // that: `loaded` {}, when all is there; `restart_lost` {reason}: the family has been killed.
  std::set<pid_t> begin(const Restarted& restarted, const std::function<void(Status)>& may_run);

  // Whether the process belongs to a family that has such members.
  bool has(pid_t pid) const;

 private:
  struct Family {
    ControlServer::ConnectionId connection;
    std::vector<pid_t> pids;
    size_t late = 0;  // members whose pages are to come
    bool is_lost = false;
  };
  using FamilyPtr = std::shared_ptr<Family>;
  void one_is_complete(const FamilyPtr& family, const Status& all_here);

  NodeContext& node_;
  ControlServer& control_;
  PageMoves* const pages_;
  std::set<FamilyPtr> families_;
};

}  // namespace krg
