// TeamServer: tasks that members give each other. A member that waits at a barrier, at the end of a
// region or for tasks is answered with one, as soon as there is one that it may run. So a task
// waits here only while nobody waits who may run it; and since a member with unfinished tasks of
// its own, given away or not, comes to no barrier, a barrier that all have come to is over.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>

#include "teams/team_server.h"

namespace krg {
namespace {

// So many tasks of each member wait here at the most; more would only have to be taken back.
constexpr size_t kMostPerMember = 2;

}  // namespace

// What a member waits for, if it can be given a task.
std::optional<TeamTasks::Wanted> TeamServer::wanted_by(pid_t tid, uint64_t key,
                                                       const Team& team) const {
  const auto found = waiting_.find(tid);
  if (found == waiting_.end() || found->second.told == Told::kTogether) return std::nullopt;
  const TeamWords& words = found->second.words;
  if (words[2] != key) return std::nullopt;
  switch (op_of(words)) {
    case TeamOp::wait_for_task:
      return TeamTasks::Wanted{words[3], words[4]};
    case TeamOp::dock:
      if (words[3] == 0 ||
          !std::binary_search(team.sorted_roster.begin(), team.sorted_roster.end(), tid))
        return std::nullopt;
      return TeamTasks::Wanted{};
    case TeamOp::barrier:
    case TeamOp::end:
      return TeamTasks::Wanted{};
    default:
      return std::nullopt;
  }
}

void TeamServer::note_waiting(pid_t tid, uint64_t key, Team& team) {
  if (!wanted_by(tid, key, team)) return;
  const TeamWords& words = waiting_[tid].words;
  team.takers.insert(tid);
  if (op_of(words) == TeamOp::wait_for_task && words[5] != 0) team.givers.insert(tid);
}

void TeamServer::give_task(pid_t tid, Team& team, const TeamWords& words) {
  const NodeId node = nodes_[tid] = waiting_[tid].node;
  const bool is_taken = (words[3] & kTeamTaskForced) != 0 ||
                        team.tasks.waiting() < kMostPerMember * size_t{team.size};
  if (is_taken) {
    if (!std::exchange(team.has_tasks, true) && tell_first_task_) tell_first_task_(words[2]);
    team.tasks.give(tid, node, words);
    hand_on(node, words[2], team);
  }
  TeamWords told{};
  team.tasks.take_news(tid, told, 3);
  answer(tid, is_taken ? 1 : 0, told);
}

// To one that waits, of this node if there is one.
void TeamServer::hand_on(NodeId node, uint64_t key, Team& team) {
  for (const bool is_near : {true, false})
    for (pid_t member : team.takers)
      if ((nodes_[member] == node) == is_near && hand_task(member, key, team)) return;
}

bool TeamServer::hand_task(pid_t tid, uint64_t key, Team& team) {
  const auto wanted = wanted_by(tid, key, team);
  if (!wanted) return false;
  const auto found = team.tasks.take(tid, nodes_[tid], *wanted);
  if (!found) return false;
  std::erase(team.at_barrier, tid);
  if (std::erase(team.docked, tid) > 0) --team.ended;
  if (team.end_waiter == tid) team.end_waiter = 0;
  answer(tid, found->is_own ? kTeamOwnTask : kTeamTask, found->words);
  return true;
}

void TeamServer::wait_for_task(pid_t tid, Team& team, const TeamWords& words) {
  nodes_[tid] = waiting_[tid].node;
  if (!tell_news(tid, team)) look_for_task(tid, words[2], team);
}

bool TeamServer::tell_news(pid_t tid, Team& team) {
  const auto call = waiting_.find(tid);
  if (call == waiting_.end() || op_of(call->second.words) != TeamOp::wait_for_task ||
      !team.tasks.has_news(tid))
    return false;
  TeamWords news{};
  team.tasks.take_news(tid, news, 3);
  answer(tid, kTeamNews, news);
  return true;
}

// For one that has just begun to wait. Where nothing is there for it, or for another one that
// waits, members that wait and have tasks that they may not run themselves now give one.
void TeamServer::look_for_task(pid_t tid, uint64_t key, Team& team) {
  note_waiting(tid, key, team);
  if (!team.has_tasks || !team.takers.contains(tid) || hand_task(tid, key, team) ||
      team.givers.empty() || !is_one_of_several_waiting(tid, key, team))
    return;
  for (pid_t member : team.givers)
    if (wanted_by(member, key, team)) return answer(member, kTeamNews);
}

bool TeamServer::is_one_of_several_waiting(pid_t tid, uint64_t key, const Team& team) const {
  return std::any_of(team.takers.begin(), team.takers.end(),
                     [&](pid_t other) { return other != tid && wanted_by(other, key, team); });
}

void TeamServer::task_over(Team& team, const TeamWords& words) {
  const uint64_t task = words[3] & ~kTeamTaskBits;
  const auto owner = team.tasks.over(task, words[3] & kTeamTaskBits);
  if (owner) tell_news(*owner, team);
}

void TeamServer::fulfill(Team& team, const TeamWords& words) {
  const uint64_t number = words[4];
  if (number > team.roster.size()) return;
  const pid_t owner = number == 0 ? team.master : team.roster[number - 1];
  team.tasks.add_news(owner, words[3] | kTeamFulfilled);
  tell_news(owner, team);
}

}  // namespace krg
