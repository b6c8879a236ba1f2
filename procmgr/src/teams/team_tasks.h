// TeamTasks: explicit tasks of an OpenMP team that members have given away, until all of them is
// over. A member queues its tasks itself and gives some to krgd (team_call.h); others that have
// nothing to do get them here. What a task's owner is to know of it is kept until the owner asks
// ("news"). A member that waits inside a task may only run what descends from what it waits for:
// so each task is known with the given one that it descends from. Pure.
//
// Threads: the loop's thread. Owned by TeamServer.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "krg/procmgr/team_call.h"
#include "krg/runtime/types.h"

namespace krg {

class PackedReader;
class PackedWriter;

class TeamTasks {
 public:
  struct Wanted {
    uint64_t what = kTeamAnyTask;
    uint64_t of = 0;  // the parent or the group
  };
  struct Found {
    bool is_own = false;
    TeamWords words{};
  };

  size_t waiting() const { return queued_.size(); }
  // REQUIRES: an owner does not give a task away that it has given, until it is told that all of it
  // is over or gets it back.
  void give(pid_t owner, NodeId node, const TeamWords& words);
  // For a member on that node: one of its own, else one of its node's, else the oldest.
  std::optional<Found> take(pid_t tid, NodeId node, const Wanted& wanted);
  // Of a task that somebody has taken. Returns its owner.
  std::optional<pid_t> over(uint64_t task, uint64_t parts);
  void add_news(pid_t tid, uint64_t word);
  bool has_news(pid_t tid) const { return news_.contains(tid); }
  // Into words from `first` on, as many as fit.
  void take_news(pid_t tid, TeamWords& words, unsigned first);

  void put(PackedWriter& out) const;
  void get(PackedReader& in);

 private:
  struct Task {
    pid_t owner = 0;
    NodeId node{};  // where it was given
    TeamWords words{};
  };

  bool fits(const Task& task, const Wanted& wanted) const;

  std::map<uint64_t, Task> tasks_;  // those that are queued or taken
  std::vector<uint64_t> queued_;    // in order of age
  std::map<pid_t, std::deque<uint64_t>> news_;
};

}  // namespace krg
