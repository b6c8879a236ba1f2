// SPDX-License-Identifier: GPL-2.0-or-later
#include "late_members.h"

#include <algorithm>
#include <csignal>

#include "krg/runtime/log.h"

namespace krg {

Status LateMembers::can_come_later() const {
  return pages_ ? PageMoves::can_bring_later() : errno_error("no pages come later here", ENOTSUP);
}

std::set<pid_t> LateMembers::begin(const Restarted& restarted,
                                   const std::function<void(Status)>& may_run) {
  const auto& members = restarted.installer.family().members;
  auto family = std::make_shared<Family>(Family{restarted.connection, {}});
  std::set<pid_t> late;
  for (uint32_t i = 0; i < members.size(); ++i) {
    if (members[i].has_ended()) continue;
    family->pids.push_back(members[i].pid);
    UniqueFd userfaultfd = restarted.installer.take_userfaultfd(i);
    if (!userfaultfd) continue;
    late.insert(members[i].pid);
    auto supply = std::make_unique<LatePages>(node_.workers, restarted.info, restarted.parts, i);
    auto ranges = restarted.installer.mark_first_pages(i, supply->ranges());
    pages_->receive({.source = node_.self,
                     .supply = std::move(supply),
                     .pid = members[i].pid,
                     .userfaultfd = std::move(userfaultfd),
                     .ranges = std::move(ranges),
                     .may_run =
                         [self = shared_from_this(), family, may_run](Status may) {
                           if (!may && --family->late == 0) self->families_.erase(family);
                           may_run(std::move(may));
                         },
                     .all_here = [self = shared_from_this(), family](
                                     const Status& all) { self->one_is_complete(family, all); }});
  }
  family->late = late.size();
  if (!late.empty()) families_.insert(family);
  return late;
}

void LateMembers::one_is_complete(const FamilyPtr& family, const Status& all_here) {
  if (!all_here && !std::exchange(family->is_lost, true)) {
    const std::string reason = all_here.error().message();
    log_error("checkpoint", "process {} and its family are killed: {}", family->pids.front(),
              reason);
    for (pid_t pid : family->pids) kill(pid, SIGKILL);
    control_.notify(family->connection, "restart_lost", {{"reason", reason}});
  }
  if (--family->late > 0) return;
  families_.erase(family);
  if (!family->is_lost) control_.notify(family->connection, "loaded", {});
}

bool LateMembers::has(pid_t pid) const {
  return std::ranges::any_of(families_, [pid](const FamilyPtr& family) {
    return std::ranges::find(family->pids, pid) != family->pids.end();
  });
}

}  // namespace krg
