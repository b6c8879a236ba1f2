// SPDX-License-Identifier: GPL-2.0-or-later
#include "teams/team_tasks.h"

#include <algorithm>

#include "packed_bytes.h"

namespace krg {
namespace {

constexpr unsigned kTask = 3, kParent = 6, kGroup = 7, kAncestor = 8;  // words of give_task

uint64_t task_of(uint64_t word) {
  return word & ~kTeamTaskBits;
}

}  // namespace

void TeamTasks::give(pid_t owner, NodeId node, const TeamWords& words) {
  const uint64_t task = task_of(words[kTask]);
  tasks_[task] = {owner, node, words};
  queued_.push_back(task);
}

bool TeamTasks::fits(const Task& task, const Wanted& wanted) const {
  if (wanted.what == kTeamAnyTask) return true;
  const unsigned word = wanted.what == kTeamChildren ? kParent : kGroup;
  for (const Task* at = &task;;) {
    if (at->words[word] == wanted.of) return true;
    const auto ancestor = tasks_.find(at->words[kAncestor]);
    if (ancestor == tasks_.end()) return false;
    at = &ancestor->second;
  }
}

std::optional<TeamTasks::Found> TeamTasks::take(pid_t tid, NodeId node, const Wanted& wanted) {
  auto best = queued_.end();
  int best_rank = 0;
  for (auto at = queued_.begin(); at != queued_.end() && best_rank < 3; ++at) {
    const Task& task = tasks_.at(*at);
    const int rank = task.owner == tid ? 3 : task.node == node ? 2 : 1;
    if (rank <= best_rank || !fits(task, wanted)) continue;
    best = at;
    best_rank = rank;
  }
  if (best == queued_.end()) return std::nullopt;
  const auto found = tasks_.find(*best);
  queued_.erase(best);
  Found given{found->second.owner == tid, found->second.words};
  if (given.is_own) tasks_.erase(found);
  return given;
}

std::optional<pid_t> TeamTasks::over(uint64_t task, uint64_t parts) {
  const auto found = tasks_.find(task);
  if (found == tasks_.end()) return std::nullopt;
  const pid_t owner = found->second.owner;
  add_news(owner, task | parts);
  if (parts & kTeamAllOver) tasks_.erase(found);
  return owner;
}

void TeamTasks::add_news(pid_t tid, uint64_t word) {
  news_[tid].push_back(word);
}

void TeamTasks::take_news(pid_t tid, TeamWords& words, unsigned first) {
  const auto found = news_.find(tid);
  if (found == news_.end()) return;
  auto& news = found->second;
  for (; first < kTeamWords && !news.empty(); ++first) {
    words[first] = news.front();
    news.pop_front();
  }
  if (news.empty()) news_.erase(found);
}

void TeamTasks::put(PackedWriter& out) const {
  out.put(static_cast<uint32_t>(tasks_.size()));
  for (const auto& [key, task] : tasks_) out.put(key).put(task.owner).put(task.words);
  out.put(static_cast<uint32_t>(queued_.size()));
  for (uint64_t key : queued_) out.put(key);
  out.put(static_cast<uint32_t>(news_.size()));
  for (const auto& [tid, news] : news_) {
    out.put(tid).put(static_cast<uint32_t>(news.size()));
    for (uint64_t word : news) out.put(word);
  }
}

void TeamTasks::get(PackedReader& in) {
  for (uint32_t i = 0, count = in.get<uint32_t>(); i < count && in.ok(); ++i) {
    Task& task = tasks_[in.get<uint64_t>()];
    task.owner = in.get<pid_t>();
    task.words = in.get<TeamWords>();
  }
  for (uint32_t i = 0, count = in.get<uint32_t>(); i < count && in.ok(); ++i) {
    const auto key = in.get<uint64_t>();
    if (tasks_.contains(key)) queued_.push_back(key);
  }
  for (uint32_t i = 0, count = in.get<uint32_t>(); i < count && in.ok(); ++i) {
    auto& news = news_[in.get<pid_t>()];
    for (uint32_t j = 0, words = in.get<uint32_t>(); j < words && in.ok(); ++j)
      news.push_back(in.get<uint64_t>());
  }
}

}  // namespace krg
