// LateMembers: members of restarted families that run on this node, or elsewhere, while their pages
// are still to come out of the checkpoint (krgrun --lazy). What cannot be read then ends the whole
// family.
//
// Threads: the loop's thread. Owned by the restarts' commands (restarts.cpp).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "krg/procmgr/page_moves.h"
#include "krg/procmgr/process_family.h"
#include "late_pages.h"

namespace krg {

class LateMembers : public std::enable_shared_from_this<LateMembers> {
 public:
  // `pages`: null: there are none.
  LateMembers(NodeContext& node, PageMoves* pages) : node_(node), pages_(pages) {}

  // Errors: why all pages are loaded before a process runs here.
  Status can_come_later() const;

  // `pids` are killed when pages of one are lost. `ended` is called once, from the loop, when all
  // that was added has come (or nothing was): an error: why they have been killed.
  struct Family;
  using FamilyPtr = std::shared_ptr<Family>;
  FamilyPtr add_family(std::vector<pid_t> pids, std::function<void(Status)> ended);
  // A member of this node, which stands. `may_run` is called once, from the loop, when what it
  // needs at once is there; after an error nobody awaits its pages. Error: EBADMSG.
  struct Arrival {
    const VersionInfo& info;
    SharedParts parts;
    uint32_t member;  // index of ProcessFamily::members
    UniqueFd userfaultfd;
  };
  Status add(const FamilyPtr& family, Arrival arrival, std::function<void(Status)> may_run);
  // Whatever is awaited on another node: what it returns is to be called once.
  std::function<void(Status)> add_others(const FamilyPtr& family);

  // Of a body of this node that stands and whose pages may come later; none: they may not.
  UniqueFd take_lent(pid_t body) { return pages_ ? pages_->take_lent(body) : UniqueFd(); }

  // Whether the process belongs to a family that has such members.
  bool has(pid_t pid) const;

 private:
  void begin_to_await(const FamilyPtr& family);
  void one_is_complete(const FamilyPtr& family, const Status& all_here);
  void one_less(const FamilyPtr& family);

  NodeContext& node_;
  PageMoves* const pages_;
  std::set<FamilyPtr> families_;  // that await something
};

}  // namespace krg
