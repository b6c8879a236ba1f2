// TeamServer: what it knows as bytes, for a checkpoint. Calls that wait are kept without those who
// wait: their threads make them again. SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>

#include "packed_bytes.h"
#include "teams/team_server.h"

namespace krg {
namespace {

constexpr uint8_t kFormatVersion = 2;

template <class T>
void put_list(PackedWriter& out, const T& list) {
  out.put(static_cast<uint32_t>(list.size()));
  for (const auto& one : list) out.put(one);
}

template <class T>
void get_list(PackedReader& in, T& list) {
  const auto count = in.get<uint32_t>();
  for (uint32_t i = 0; i < count && in.ok(); ++i) list.push_back(in.get<typename T::value_type>());
}

template <class M, class Put>
void put_map(PackedWriter& out, const M& map, Put put) {
  out.put(static_cast<uint32_t>(map.size()));
  for (const auto& [key, value] : map) {
    out.put(key);
    put(value);
  }
}

template <class M, class Get>
void get_map(PackedReader& in, M& map, Get get) {
  const auto count = in.get<uint32_t>();
  for (uint32_t i = 0; i < count && in.ok(); ++i) get(map[in.get<typename M::key_type>()]);
}

}  // namespace

bool TeamServer::is_unused() const {
  return waiting_.empty() && teams_.empty() && locks_.empty() && last_.empty();
}

void TeamServer::put(PackedWriter& out, const Team& team) {
  put_list(out, team.docked);
  put_list(out, team.roster);
  out.put(team.master).put(team.is_beginning).put(team.size).put(team.workers).put(team.region);
  out.put(team.ended).put(team.end_waiter);
  put_list(out, team.at_barrier);
  out.put(team.barrier_word).put(team.is_cancelled);
  const auto put_number = [&](unsigned number) { out.put(number); };
  put_map(out, team.singles, put_number);
  put_map(out, team.left, put_number);
  put_map(out, team.loops, [&](const Loop& loop) { out.put(loop.next).put(loop.finished); });
  put_map(out, team.published, [&](const Published& entry) {
    out.put(entry.asked).put(entry.is_known).put(entry.word);
    put_list(out, entry.waiters);
  });
  out.put(static_cast<uint32_t>(team.counters.size()));
  for (const auto& [key, counter] : team.counters) {
    out.put(key.first).put(key.second).put(counter.value);
    out.put(static_cast<uint32_t>(counter.waiters.size()));
    for (const auto& [tid, value] : counter.waiters) out.put(tid).put(value);
  }
  out.put(team.has_tasks);
  team.tasks.put(out);
}

void TeamServer::get(PackedReader& in, Team& team) {
  get_list(in, team.docked);
  get_list(in, team.roster);
  team.sorted_roster = team.roster;
  std::sort(team.sorted_roster.begin(), team.sorted_roster.end());
  team.master = in.get<pid_t>();
  team.is_beginning = in.get<bool>();
  team.size = in.get<unsigned>();
  team.workers = in.get<unsigned>();
  team.region = in.get<TeamWords>();
  team.ended = in.get<unsigned>();
  team.end_waiter = in.get<pid_t>();
  get_list(in, team.at_barrier);
  team.barrier_word = in.get<uint64_t>();
  team.is_cancelled = in.get<bool>();
  const auto get_number = [&](unsigned& number) { number = in.get<unsigned>(); };
  get_map(in, team.singles, get_number);
  get_map(in, team.left, get_number);
  get_map(in, team.loops, [&](Loop& loop) {
    loop.next = in.get<uint64_t>();
    loop.finished = in.get<unsigned>();
  });
  get_map(in, team.published, [&](Published& entry) {
    entry.asked = in.get<unsigned>();
    entry.is_known = in.get<bool>();
    entry.word = in.get<uint64_t>();
    get_list(in, entry.waiters);
  });
  for (uint32_t i = 0, count = in.get<uint32_t>(); i < count && in.ok(); ++i) {
    const auto construct = in.get<uint64_t>();
    Counter& counter = team.counters[{construct, in.get<uint64_t>()}];
    counter.value = in.get<uint64_t>();
    for (uint32_t j = 0, waiters = in.get<uint32_t>(); j < waiters && in.ok(); ++j) {
      const auto tid = in.get<pid_t>();
      counter.waiters.emplace_back(tid, in.get<uint64_t>());
    }
  }
  team.has_tasks = in.get<bool>();
  team.tasks.get(in);
}

std::string TeamServer::save() const {
  PackedWriter out;
  out.put(kFormatVersion);
  put_map(out, waiting_, [&](const Call& call) { out.put(call.words); });
  put_map(out, last_,
          [&](const Last& last) { out.put(last.number).put(last.result).put(last.words); });
  out.put(static_cast<uint32_t>(nodes_.size()));
  for (const auto& [tid, node] : nodes_) out.put(tid);
  put_map(out, teams_, [&](const Team& team) { put(out, team); });
  put_map(out, locks_, [&](const Lock& lock) {
    out.put(lock.owner).put(lock.depth);
    put_list(out, lock.waiters);
  });
  return out.take();
}

Status TeamServer::restore(std::string_view saved) {
  PackedReader in(saved);
  const auto version = in.get<uint8_t>();
  get_map(in, waiting_, [&](Call& call) { call.words = in.get<TeamWords>(); });
  get_map(in, last_, [&](Last& last) {
    last.number = in.get<uint64_t>();
    last.result = in.get<int64_t>();
    last.words = in.get<TeamWords>();
  });
  for (uint32_t i = 0, count = in.get<uint32_t>(); i < count && in.ok(); ++i)
    nodes_[in.get<pid_t>()] = NodeId{};
  get_map(in, teams_, [&](Team& team) { get(in, team); });
  get_map(in, locks_, [&](Lock& lock) {
    lock.owner = in.get<uint64_t>();
    lock.depth = in.get<uint64_t>();
    get_list(in, lock.waiters);
  });
  if (version != kFormatVersion || !in.ok() || !in.at_end())
    return errno_error("state of OpenMP teams", EBADMSG);
  for (const auto& [tid, call] : waiting_)
    if (const auto team = teams_.find(call.words[2]); team != teams_.end())
      note_waiting(tid, team->first, team->second);
  return {};
}

void TeamServer::runs_on(pid_t tid, NodeId node) {
  if (auto known = nodes_.find(tid); known != nodes_.end()) known->second = node;
  if (auto call = waiting_.find(tid); call != waiting_.end()) call->second.node = node;
}

std::vector<pid_t> TeamServer::largest_team() const {
  const Team* largest = nullptr;
  for (const auto& [key, team] : teams_)
    if (!largest || team.roster.size() > largest->roster.size()) largest = &team;
  if (!largest || largest->roster.empty()) return {};
  std::vector<pid_t> members = {largest->master};
  members.insert(members.end(), largest->roster.begin(), largest->roster.end());
  return members;
}

}  // namespace krg
