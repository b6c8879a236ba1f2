// SPDX-License-Identifier: GPL-2.0-or-later
#include "teams/local_barriers.h"

#include <algorithm>
#include <utility>

namespace krg {

size_t LocalBarriers::Team::at_barrier() const {
  size_t count = waiting.size();
  for (const Members& message : told) count += message.size();
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
  team.may_go.reset();
  Members alone = std::exchange(team.waiting, {});
  // Some are on their way to a barrier at which the others are to be told of one by one.
  if (team.at_barrier() > 0 || !alone.empty())
    for (pid_t other : std::exchange(team.members, {})) team_of_.erase(other);
  if (team.members.empty() && team.told.empty()) teams_.erase(member.mapped());
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
  const uint64_t own = std::exchange(team.word, 0);
  Told all{.members = std::exchange(team.waiting, {})};
  if (may_go && may_go->members == all.members) {
    all.go_on = true;
    all.word = may_go->word != 0 ? may_go->word : own;
  } else {
    team.told.push_back(all.members);
  }
  return all;
}

LocalBarriers::Members LocalBarriers::go(uint64_t key, const Members& members, uint64_t word) {
  auto found = teams_.find(key);
  if (found == teams_.end()) return {};
  Team& team = found->second;
  if (auto told = std::find(team.told.begin(), team.told.end(), members); told != team.told.end()) {
    team.told.erase(told);
    if (team.members.empty() && team.told.empty()) teams_.erase(found);
    return members;
  }
  const auto is_to_come = [&](pid_t tid) {
    return team.members.contains(tid) &&
           std::none_of(team.told.begin(), team.told.end(),
                        [&](const Members& message) { return message.contains(tid); });
  };
  if (std::all_of(members.begin(), members.end(), is_to_come))
    team.may_go = Permission{members, word};
  return {};
}

}  // namespace krg
