// SPDX-License-Identifier: GPL-2.0-or-later
#include "teams/local_barriers.h"

#include <algorithm>
#include <utility>

namespace krg {

size_t LocalBarriers::Team::at_barrier() const {
  size_t count = waiting.size();
  for (const Told& message : told) count += message.members.size();
  return count;
}

void LocalBarriers::enter(pid_t tid, uint64_t team) {
  leave(tid);
  if (teams_[team].members.empty()) teams_[team] = {};  // what was told was of another region
  teams_[team].members.insert(tid);
  team_of_[tid] = team;
}

LocalBarriers::Members LocalBarriers::leave(pid_t tid) {
  auto member = team_of_.extract(tid);
  if (member.empty()) return {};
  Team& team = teams_[member.mapped()];
  team.members.erase(tid);
  team.waiting.erase(tid);
  const bool may_go = std::exchange(team.may_go, std::nullopt).has_value();
  Members alone = std::exchange(team.waiting, {});
  // Some are at a barrier, or may pass the next one: home is to be told of the others one by one.
  if (may_go || team.at_barrier() > 0 || !alone.empty())
    for (pid_t other : std::exchange(team.members, {})) team_of_.erase(other);
  if (team.members.empty() && team.told.empty()) teams_.erase(member.mapped());
  return alone;
}

LocalBarriers::Members LocalBarriers::dissolve(uint64_t key) {
  auto found = teams_.extract(key);
  if (found.empty()) return {};
  Team& team = found.mapped();
  for (pid_t tid : team.members) team_of_.erase(tid);
  Members alone = std::move(team.waiting);
  for (const Told& message : team.told)
    alone.insert(message.members.begin(), message.members.end());
  return alone;
}

std::optional<LocalBarriers::Told> LocalBarriers::arrive(pid_t tid, uint64_t key, uint64_t word) {
  auto found = team_of_.find(tid);
  if (found == team_of_.end() || found->second != key) return std::nullopt;
  Team& team = teams_[key];
  team.waiting.insert(tid);
  if (word != 0) team.word = word;
  if (team.at_barrier() < team.members.size()) return Told{};
  const auto may_go = std::exchange(team.may_go, std::nullopt);
  Told all;
  all.members = std::exchange(team.waiting, {});
  all.word = std::exchange(team.word, 0);
  all.go_on = may_go && may_go->members == all.members;
  if (!all.go_on)
    team.told.push_back(all);
  else if (may_go->word != 0)
    all.word = may_go->word;
  return all;
}

LocalBarriers::Told LocalBarriers::go(uint64_t key, const Members& members, uint64_t word) {
  auto found = teams_.find(key);
  if (found == teams_.end()) return {};
  Team& team = found->second;
  const auto told = std::find_if(team.told.begin(), team.told.end(),
                                 [&](const Told& message) { return message.members == members; });
  if (told != team.told.end()) {
    Told all = std::move(*told);
    team.told.erase(told);
    if (team.members.empty() && team.told.empty()) teams_.erase(found);
    if (word != 0) all.word = word;
    all.go_on = true;
    return all;
  }
  const auto is_to_come = [&](pid_t tid) {
    return team.members.contains(tid) &&
           std::none_of(team.told.begin(), team.told.end(),
                        [&](const Told& message) { return message.members.contains(tid); });
  };
  if (std::all_of(members.begin(), members.end(), is_to_come))
    team.may_go = Permission{members, word};
  return {};
}

}  // namespace krg
