// SPDX-License-Identifier: GPL-2.0-or-later
#include "teams/team_server.h"

#include <algorithm>
#include <cerrno>
#include <set>

namespace krg {
namespace {

bool is_done_by_all(unsigned& count, unsigned size) {
  return ++count >= size;
}

}  // namespace

// --- calls and their answers --------------------------------------------------------------------

void TeamServer::call(pid_t tid, NodeId node, const TeamWords& words, Answer answer, Told told) {
  if (auto last = last_.find(tid); last != last_.end() && last->second.number == words[1])
    return answer(last->second.result, last->second.words);
  auto [entry, is_new] = waiting_.try_emplace(tid);
  const bool is_again = !is_new && entry->second.words[1] == words[1];
  const Told before = entry->second.told;
  entry->second = Call{words, node, std::move(answer), told};
  if (!is_again) return carry_out(tid, words);
  if (before == Told::kTogether && told == Told::kAlone)
    look_for_task(tid, words[2], teams_[words[2]]);
}

bool TeamServer::is_waiting(pid_t tid) const {
  auto found = waiting_.find(tid);
  return found != waiting_.end() && found->second.answer;
}

void TeamServer::interrupt(pid_t tid) {
  if (!is_waiting(tid)) return;
  Call& call = waiting_[tid];
  const Answer told = std::exchange(call.answer, nullptr);
  told(-EINTR, call.words);
}

void TeamServer::answer(pid_t tid, int64_t result, const TeamWords& words) {
  auto call = waiting_.extract(tid);
  if (call.empty()) return;
  if (const auto team = teams_.find(call.mapped().words[2]); team != teams_.end()) {
    team->second.takers.erase(tid);
    team->second.givers.erase(tid);
  }
  last_[tid] = {call.mapped().words[1], result, words};
  if (call.mapped().answer) call.mapped().answer(result, words);
}

void TeamServer::gone(pid_t tid) {
  waiting_.erase(tid);
  last_.erase(tid);
  nodes_.erase(tid);
  for (auto& [key, team] : teams_) {
    std::erase(team.docked, tid);
    std::erase(team.at_barrier, tid);
    team.takers.erase(tid);
    team.givers.erase(tid);
    if (std::binary_search(team.sorted_roster.begin(), team.sorted_roster.end(), tid))
      forget_roster(team);
  }
  for (auto& [key, lock] : locks_) std::erase(lock.waiters, tid);
}

void TeamServer::carry_out(pid_t tid, const TeamWords& words) {
  const uint64_t key = words[2];
  switch (op_of(words)) {
    case TeamOp::dock:
      dock(tid, teams_[key], words[3] != 0);
      return look_for_task(tid, key, teams_[key]);
    case TeamOp::begin:
      return begin(tid, teams_[key], words);
    case TeamOp::end:
      teams_[key].end_waiter = tid;
      end_if_complete(teams_[key]);
      return look_for_task(tid, key, teams_[key]);
    case TeamOp::barrier:
      barrier(tid, teams_[key], words);
      return look_for_task(tid, key, teams_[key]);
    case TeamOp::cancel:
      cancel(teams_[key]);
      return answer(tid, 0);
    case TeamOp::dismiss:
      dismiss(teams_[key]);
      return answer(tid, 0);
    case TeamOp::single:
      return single(tid, teams_[key], words[3]);
    case TeamOp::next:
      return next(tid, teams_[key], words);
    case TeamOp::post:
      post(teams_[key], words);
      return answer(tid, 0);
    case TeamOp::await:
      return await(tid, teams_[key], words);
    case TeamOp::claim:
      return claim(tid, teams_[key], words[3]);
    case TeamOp::publish:
      publish(teams_[key], words);
      return answer(tid, 0);
    case TeamOp::leave:
      return leave(tid, teams_[key], words[3]);
    case TeamOp::lock:
    case TeamOp::try_lock:
      return lock(tid, words);
    case TeamOp::unlock:
      unlock(key);
      return answer(tid, 0);
    case TeamOp::give_task:
      return give_task(tid, teams_[key], words);
    case TeamOp::wait_for_task:
      return wait_for_task(tid, teams_[key], words);
    case TeamOp::task_over:
      task_over(teams_[key], words);
      return answer(tid, 0);
    case TeamOp::fulfill:
      fulfill(teams_[key], words);
      return answer(tid, 0);
  }
  answer(tid, -ENOSYS);
}

// --- regions ------------------------------------------------------------------------------------

void TeamServer::dock(pid_t tid, Team& team, bool has_ended_region) {
  nodes_[tid] = waiting_[tid].node;
  team.docked.push_back(tid);
  if (has_ended_region) ++team.ended;
  end_if_complete(team);
  begin_if_complete(team);
}

void TeamServer::begin(pid_t tid, Team& team, const TeamWords& words) {
  nodes_[tid] = waiting_[tid].node;
  const auto size = static_cast<unsigned>(words[3]);
  const bool was_bound = is_bound(team);
  if (size != team.size || team.master != tid || ((words[3] & kTeamBound) != 0) != was_bound)
    forget_roster(team);
  team.master = tid;
  team.size = size;
  team.workers = static_cast<unsigned>((words[3] & ~kTeamBound) >> 32);
  team.region = words;
  team.ended = 0;
  team.end_waiter = 0;
  team.at_barrier.clear();
  end_barrier(words[2], team);
  team.is_cancelled = false;
  team.singles.clear();
  team.left.clear();
  team.loops.clear();
  team.published.clear();
  team.counters.clear();
  team.tasks = {};
  team.has_tasks = false;
  team.is_beginning = true;
  begin_if_complete(team);
}

void TeamServer::begin_if_complete(Team& team) {
  if (!team.is_beginning) return;
  if (team.roster.empty()) {
    if (team.docked.size() < team.workers) return;
    is_bound(team) ? keep_numbers(team) : choose_members(team);
    team.sorted_roster = team.roster;
    std::sort(team.sorted_roster.begin(), team.sorted_roster.end());
  }
  count_on_nodes(team);
  team.is_beginning = false;
  std::erase_if(team.docked, [&](pid_t tid) {
    return std::binary_search(team.sorted_roster.begin(), team.sorted_roster.end(), tid);
  });
  for (size_t i = 0; i < team.roster.size(); ++i) {
    TeamWords words = team.region;
    words[3] = i + 1;
    answer(team.roster[i], 1, words);
  }
  // The master waits for workers that are new, as under libgomp: programs may rest on their being
  // there when it begins.
  if (const auto call = waiting_.find(team.master);
      call != waiting_.end() && op_of(call->second.words) == TeamOp::begin)
    answer(team.master, 0);
}

void TeamServer::forget_roster(Team& team) {
  team.roster.clear();
  team.sorted_roster.clear();
}

// As many members on each node as can be, neighbours on the same one, those of the master's node
// first. The same workers for the same size: what is private to a member's number stays.
void TeamServer::choose_members(Team& team) {
  const NodeId first = nodes_[team.master];
  std::map<std::pair<bool, NodeId>, std::vector<pid_t>> by_node;
  by_node[{false, first}];
  for (pid_t tid : team.docked) by_node[{nodes_[tid] != first, nodes_[tid]}].push_back(tid);
  std::map<std::pair<bool, NodeId>, unsigned> taken;
  unsigned left = team.size - 1;
  while (left > 0) {
    const auto members = [&](const auto& entry) {
      auto found = taken.find(entry.first);
      return (found == taken.end() ? 0 : found->second) + (entry.first.first ? 0 : 1);
    };
    const auto has_more = [&](const auto& entry) {
      auto found = taken.find(entry.first);
      return (found == taken.end() ? 0 : found->second) < entry.second.size();
    };
    auto best = by_node.end();
    for (auto entry = by_node.begin(); entry != by_node.end(); ++entry)
      if (has_more(*entry) && (best == by_node.end() || members(*entry) < members(*best)))
        best = entry;
    if (best == by_node.end()) break;
    ++taken[best->first];
    --left;
  }
  for (auto& [key, tids] : by_node) {
    std::sort(tids.begin(), tids.end());
    team.roster.insert(team.roster.end(), tids.begin(), tids.begin() + taken[key]);
  }
}

// Where members are bound by their numbers: the eldest workers.
void TeamServer::keep_numbers(Team& team) {
  std::vector<pid_t> tids = team.docked;
  std::sort(tids.begin(), tids.end());
  tids.resize(std::min<size_t>(tids.size(), team.size - 1));
  team.roster = std::move(tids);
}

// They may have gone to other places since they were chosen.
void TeamServer::count_on_nodes(Team& team) {
  team.on_node = {{nodes_[team.master], 1}};
  for (pid_t tid : team.roster) ++team.on_node[nodes_[tid]];
}

void TeamServer::end_if_complete(Team& team) {
  if (team.end_waiter == 0 || team.ended + 1 < team.size) return;
  answer(std::exchange(team.end_waiter, 0), 0);
}

void TeamServer::barrier(pid_t tid, Team& team, const TeamWords& words) {
  if (words[4] != 0 && team.is_cancelled) return answer(tid, 1);
  team.at_barrier.push_back(tid);
  nodes_[tid] = waiting_[tid].node;
  ++team.at_barrier_on[nodes_[tid]];
  if (words[3] != 0) team.barrier_word = words[3];
  if (team.at_barrier.size() < team.size)
    return words[4] == 0 ? tell_last_node(words[2], team) : void();
  TeamWords all{};
  all[3] = team.barrier_word;
  end_barrier(words[2], team);
  for (pid_t member : std::exchange(team.at_barrier, {})) answer(member, 0, all);
}

void TeamServer::tell_last_node(uint64_t key, Team& team) {
  if (!tell_last_ || team.is_last_told || team.has_tasks || team.roster.size() + 1 != team.size)
    return;
  // Who looks at all of them does so for one node's members only: else each who comes would.
  unsigned incomplete = 0;
  for (const auto& [node, count] : team.on_node) {
    const auto come = team.at_barrier_on.find(node);
    if (come == team.at_barrier_on.end() || come->second < count) ++incomplete;
  }
  if (incomplete > 1) return;
  LastNode last{.team = key, .word = team.barrier_word};
  std::vector<pid_t> members = team.roster;
  members.push_back(team.master);
  const std::set<pid_t> here(team.at_barrier.begin(), team.at_barrier.end());
  for (pid_t member : members) {
    if (here.contains(member)) continue;
    const NodeId node = nodes_[member];
    if (!last.members.empty() && node != last.node) return;
    last.node = node;
    last.members.push_back(member);
  }
  std::sort(last.members.begin(), last.members.end());
  team.is_last_told = tell_last_(last);
}

void TeamServer::end_barrier(uint64_t key, Team& team) {
  team.barrier_word = 0;
  team.at_barrier_on.clear();
  if (std::exchange(team.is_last_told, false)) tell_last_(LastNode{.team = key});
}

void TeamServer::cancel(Team& team) {
  team.is_cancelled = true;
  for (pid_t member : std::vector(team.at_barrier)) {
    auto call = waiting_.find(member);
    if (call == waiting_.end() || call->second.words[4] == 0) continue;
    std::erase(team.at_barrier, member);
    answer(member, 1);
  }
}

void TeamServer::dismiss(Team& team) {
  forget_roster(team);
  for (pid_t worker : std::exchange(team.docked, {})) answer(worker, 0);
}

// --- what members share in a region -------------------------------------------------------------

void TeamServer::single(pid_t tid, Team& team, uint64_t construct) {
  unsigned& asked = team.singles[construct];
  const bool is_first = asked == 0;
  if (is_done_by_all(asked, team.size)) team.singles.erase(construct);
  answer(tid, is_first ? 1 : 0);
}

void TeamServer::next(pid_t tid, Team& team, const TeamWords& words) {
  const uint64_t count = words[4], chunk = words[5];
  Loop& loop = team.loops[words[3]];
  if (loop.next >= count) {
    if (is_done_by_all(loop.finished, team.size)) team.loops.erase(words[3]);
    return answer(tid, 0);
  }
  const uint64_t left = count - loop.next;
  uint64_t size = chunk;
  if ((words[6] & ~kTeamWholeChunks) == kTeamGuided) {
    size = std::max(left / team.size + (left % team.size != 0 ? 1 : 0), chunk);
    if (words[6] & kTeamWholeChunks) size -= size % chunk;
  } else {  // several chunks where many are left, so that nobody waits for one who has many
    const uint64_t fair = left / chunk / (2 * uint64_t{team.size});
    size = chunk * std::max<uint64_t>(std::min(fair, words[7]), 1);
  }
  TeamWords found{};
  found[3] = loop.next;
  loop.next += std::min(size, left);
  found[4] = loop.next;
  answer(tid, 1, found);
}

void TeamServer::post(Team& team, const TeamWords& words) {
  Counter& counter = team.counters[{words[3], words[4]}];
  counter.value = std::max(counter.value, words[5]);
  for (const auto& [tid, value] : std::vector(counter.waiters)) {
    if (counter.value < value) continue;
    std::erase(counter.waiters, std::pair(tid, value));
    answer(tid, 0);
  }
}

void TeamServer::await(pid_t tid, Team& team, const TeamWords& words) {
  Counter& counter = team.counters[{words[3], words[4]}];
  if (counter.value >= words[5]) return answer(tid, 0);
  counter.waiters.emplace_back(tid, words[5]);
}

void TeamServer::claim(pid_t tid, Team& team, uint64_t construct) {
  Published& entry = team.published[construct];
  if (entry.asked++ == 0) return answer(tid, 1);
  if (!entry.is_known) return entry.waiters.push_back(tid);
  TeamWords words{};
  words[3] = entry.word;
  answer(tid, 0, words);
}

void TeamServer::publish(Team& team, const TeamWords& words) {
  Published& entry = team.published[words[3]];
  entry.is_known = true;
  entry.word = words[4];
  TeamWords told{};
  told[3] = entry.word;
  for (pid_t tid : std::exchange(entry.waiters, {})) answer(tid, 0, told);
}

void TeamServer::leave(pid_t tid, Team& team, uint64_t construct) {
  unsigned& left = team.left[construct];
  const bool is_last = is_done_by_all(left, team.size);
  if (is_last) {
    team.left.erase(construct);
    team.published.erase(construct);
  }
  answer(tid, is_last ? 1 : 0);
}

// --- locks --------------------------------------------------------------------------------------

void TeamServer::lock(pid_t tid, const TeamWords& words) {
  Lock& lock = locks_[words[2]];
  const uint64_t owner = words[3];
  if (lock.depth == 0 || (owner != 0 && lock.owner == owner)) {
    lock.owner = owner;
    return answer(tid, static_cast<int64_t>(++lock.depth));
  }
  if (op_of(words) == TeamOp::try_lock) return answer(tid, 0);
  lock.waiters.push_back(tid);
}

void TeamServer::unlock(uint64_t key) {
  auto found = locks_.find(key);
  if (found == locks_.end()) return;
  Lock& lock = found->second;
  if (lock.depth > 0 && --lock.depth > 0) return;
  if (lock.waiters.empty()) {
    locks_.erase(found);
    return;
  }
  const pid_t next = lock.waiters.front();
  lock.waiters.pop_front();
  lock.owner = waiting_[next].words[3];
  lock.depth = 1;
  answer(next, 1);
}

}  // namespace krg
