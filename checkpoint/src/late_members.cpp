// SPDX-License-Identifier: GPL-2.0-or-later
#include "late_members.h"

#include <algorithm>
#include <csignal>

#include "krg/procmgr/family_installer.h"
#include "krg/runtime/log.h"

namespace krg {

namespace {

// The part of its own node has that; those behind these are of older versions.
const FamilyMember& with_image(const VersionInfo& info,
                               const std::vector<std::unique_ptr<PartReader>>& parts,
                               uint32_t member) {
  size_t own = 0;
  while (own + 1 < info.nodes.size() &&
         parts.at(own)->contents().family.members.at(member).image.empty())
    ++own;
  return parts.at(own)->contents().family.members.at(member);
}

}  // namespace

struct LateMembers::Family {
  std::vector<pid_t> pids;
  std::function<void(Status)> ended;
  size_t late = 0;
  Status outcome = {};
};

Status LateMembers::can_come_later() const {
  return pages_ ? PageMoves::can_bring_later() : errno_error("no pages come later here", ENOTSUP);
}

// It awaits itself until this turn of the loop is over: so it ends once, whatever is added.
LateMembers::FamilyPtr LateMembers::add_family(std::vector<pid_t> pids,
                                               std::function<void(Status)> ended) {
  auto family = std::make_shared<Family>(Family{std::move(pids), std::move(ended)});
  begin_to_await(family);
  node_.loop.post([self = shared_from_this(), family] { self->one_less(family); });
  return family;
}

Status LateMembers::add(const FamilyPtr& family, Arrival arrival,
                        std::function<void(Status)> may_run) {
  const FamilyMember& member = with_image(arrival.info, *arrival.parts, arrival.member);
  auto supply = std::make_unique<LatePages>(node_.workers, arrival.info, std::move(arrival.parts),
                                            arrival.member);
  auto ranges = FamilyInstaller::mark_first_pages(member, supply->ranges());
  if (!ranges) return ranges.error();
  begin_to_await(family);
  pages_->receive({.source = node_.self,
                   .supply = std::move(supply),
                   .pid = member.pid,
                   .userfaultfd = std::move(arrival.userfaultfd),
                   .ranges = std::move(*ranges),
                   .may_run =
                       [self = shared_from_this(), family, may_run](Status may) {
                         if (!may) self->one_less(family);
                         may_run(std::move(may));
                       },
                   .all_here = [self = shared_from_this(), family](
                                   const Status& all) { self->one_is_complete(family, all); }});
  return {};
}

std::function<void(Status)> LateMembers::add_others(const FamilyPtr& family) {
  begin_to_await(family);
  return [self = shared_from_this(), family](const Status& all) {
    self->one_is_complete(family, all);
  };
}

void LateMembers::begin_to_await(const FamilyPtr& family) {
  ++family->late;
  families_.insert(family);
}

void LateMembers::one_is_complete(const FamilyPtr& family, const Status& all_here) {
  if (!all_here && family->outcome) {
    family->outcome = all_here;
    log_error("checkpoint", "process {} and its family are killed: {}", family->pids.front(),
              all_here.error().message());
    for (pid_t pid : family->pids) kill(pid, SIGKILL);
  }
  one_less(family);
}

void LateMembers::one_less(const FamilyPtr& family) {
  if (--family->late > 0) return;
  families_.erase(family);
  family->ended(family->outcome);
}

bool LateMembers::has(pid_t pid) const {
  return std::ranges::any_of(families_, [pid](const FamilyPtr& family) {
    return std::ranges::find(family->pids, pid) != family->pids.end();
  });
}

}  // namespace krg
