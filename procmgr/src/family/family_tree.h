// FamilyTree: the tree of a family's processes, each a copy of its parent as it has just execed,
// with its place in sessions and groups; what they are to be comes afterwards.
//
// A process is in the session that its parent was in when it forked it: who leads a session may
// have made children before, which are made before here, too. Whose maker has ended (an orphan),
// and what groups and sessions have ended leaders, is made by helpers, which end when all is there.
// So is whom a member has adopted (PR_SET_CHILD_SUBREAPER): it adopts again, when the helper ends.
//
// Threads: the loop's thread, which is the tracer. All end with it unless they were let go.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "image/frozen_process.h"
#include "krg/procmgr/process_family.h"

namespace krg {

class FamilyTree {
 public:
  // `leads`: runs when a member has become the leader of its session, before it has other children.
  using Leads = std::function<Status(const FamilyMember&, FrozenProcess&)>;
  FamilyTree(ChildReaper& reaper, const ProcessFamily& family, Leads leads);
  ~FamilyTree();

  // Errors: EEXIST: a pid is taken; EPERM: pids may not be chosen; ESRCH; ENOTSUP: a member in a
  // session that nobody who would make it is in.
  Status grow(FrozenThread root);
  const std::shared_ptr<FrozenProcess>& process(uint32_t member) const {
    return processes_.at(member);
  }
  // It is not the tree's any more.
  std::shared_ptr<FrozenProcess> release(uint32_t member) {
    return std::move(processes_.at(member));
  }
  // Those that had ended end. REQUIRES: all others know what they do with SIGCHLD.
  Status end_zombies();

 private:
  struct Helper {
    std::shared_ptr<FrozenProcess> process;
    std::shared_ptr<FrozenProcess> maker;
  };

  void find_births();
  bool is_adopted(uint32_t parent, pid_t born_in) const;
  Status raise(uint32_t member);
  Status raise_children(uint32_t member, bool leads_already);
  Status raise_orphans();
  Status raise_adopted();
  Status adopt(uint32_t child);
  Result<std::shared_ptr<FrozenProcess>> fork(FrozenProcess& maker, pid_t pid, uint64_t end_signal);
  Status fork_member(FrozenProcess& maker, uint32_t member);
  Result<std::shared_ptr<FrozenProcess>> make_helper(std::shared_ptr<FrozenProcess> maker,
                                                     pid_t pid);
  Result<std::shared_ptr<FrozenProcess>> lead_ended_session(pid_t session, uint32_t maker = 0);
  Result<std::shared_ptr<FrozenProcess>> maker_of_adopted(uint32_t parent, pid_t session);
  bool descends(uint32_t member, uint32_t from) const;
  Result<std::shared_ptr<FrozenProcess>> parent_of_orphan(pid_t session);
  Result<std::shared_ptr<FrozenProcess>> process_in(pid_t session);
  Status lead_ended_groups();
  Status join_groups();
  Status end_helpers();

  ChildReaper& reaper_;
  const ProcessFamily& family_;
  const Leads leads_;
  std::vector<std::shared_ptr<FrozenProcess>> processes_;
  std::map<pid_t, std::vector<uint32_t>> children_;  // by parent
  std::map<pid_t, uint32_t> members_;                // by pid
  // By member: the session that it was born in; none: any will do, it leads its own.
  std::vector<std::optional<pid_t>> births_;
  std::vector<uint32_t> adopted_;                            // members, parents first
  std::set<uint32_t> adopters_;                              // those that have been told to adopt
  std::map<pid_t, uint32_t> makers_;                         // by session: of leaders_
  std::vector<Helper> helpers_;                              // in the order in which they were made
  std::map<pid_t, std::shared_ptr<FrozenProcess>> leaders_;  // by session, which they have ended
  std::map<pid_t, std::shared_ptr<FrozenProcess>> adoptive_;  // by session: of orphans
};

}  // namespace krg
