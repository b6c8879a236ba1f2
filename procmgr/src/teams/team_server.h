// TeamServer: what the members of a process's OpenMP teams share when they are on several nodes. It
// knows threads by their ids and where they run, and never touches the process's memory, so that no
// page moves for a barrier, a loop's next chunk or a lock. Pure: calls in, answers out.
//
// A call that waits is kept until it can be answered. When its thread makes it again (it was told
// EINTR, or goes on on another node), the new one takes its place; when it has been answered
// meanwhile, it gets that answer. So members may move at any moment.
//
// Threads: the loop's thread. Owned by SpreadProcess.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "krg/procmgr/team_call.h"
#include "krg/runtime/result.h"
#include "krg/runtime/types.h"
#include "teams/team_tasks.h"

namespace krg {

class PackedReader;
class PackedWriter;

class TeamServer {
 public:
  using Answer = std::function<void(int64_t result, const TeamWords& words)>;

  // Together: with those of other members, which get the same answer.
  enum class Told : uint8_t { kAlone, kTogether };
  // `answer` runs once, perhaps before this returns, or never. Unknown calls: ENOSYS.
  void call(pid_t tid, NodeId node, const TeamWords& words, Answer answer,
            Told told = Told::kAlone);
  bool is_waiting(pid_t tid) const;
  // A thread that waits is told EINTR; it will make its call again.
  void interrupt(pid_t tid);
  // The thread is no more.
  void gone(pid_t tid);

  // All members of a team but those of one node are at a barrier that cannot be cancelled.
  struct LastNode {
    uint64_t team = 0;
    NodeId node{};
    std::vector<pid_t> members{};  // who are missing, in order; none: the barrier is over
    uint64_t word = 0;             // what the barrier tells, as far as is known
  };
  // `tell` may return false: it wants to be told again when another one has come.
  void on_last_node(std::function<bool(const LastNode&)> tell) { tell_last_ = std::move(tell); }

  // A member has given a task away, the first one in this region: others can be given some once
  // they make their calls alone.
  void on_first_task(std::function<void(uint64_t team)> tell) {
    tell_first_task_ = std::move(tell);
  }

  // Whether nobody has ever called.
  bool is_unused() const;
  // All that it knows, and of one that is unused, again; threads that waited make their calls
  // again. `restore`, error: EBADMSG.
  std::string save() const;
  Status restore(std::string_view saved);
  // After that: where the thread runs now.
  void runs_on(pid_t tid, NodeId node);
  // The members of its largest team that has had a region, by their numbers; none: there is none.
  std::vector<pid_t> largest_team() const;

 private:
  struct Call {
    TeamWords words{};
    NodeId node;
    Answer answer;  // null: its thread has been told EINTR
    Told told = Told::kAlone;
  };
  struct Last {
    uint64_t number = 0;
    int64_t result = 0;
    TeamWords words{};
  };
  struct Loop {
    uint64_t next = 0;
    unsigned finished = 0;
  };
  struct Published {
    unsigned asked = 0;
    bool is_known = false;
    uint64_t word = 0;
    std::vector<pid_t> waiters;
  };
  struct Counter {
    uint64_t value = 0;
    std::vector<std::pair<pid_t, uint64_t>> waiters;
  };
  // A pool of workers and the region that they are in, if any.
  struct Team {
    std::vector<pid_t> docked;
    std::vector<pid_t> roster;  // members 1, 2, ... of the last region
    std::vector<pid_t> sorted_roster;
    pid_t master = 0;
    bool is_beginning = false;  // workers are still to come
    unsigned size = 1, workers = 0;
    TeamWords region{};
    unsigned ended = 0;
    pid_t end_waiter = 0;
    std::vector<pid_t> at_barrier;
    uint64_t barrier_word = 0;
    bool is_last_told = false;                          // who of the last node are missing
    std::map<NodeId, unsigned> on_node, at_barrier_on;  // members; those who came, about
    bool is_cancelled = false;
    std::map<uint64_t, unsigned> singles, left;
    std::map<uint64_t, Loop> loops;
    std::map<uint64_t, Published> published;
    std::map<std::pair<uint64_t, uint64_t>, Counter> counters;
    TeamTasks tasks;
    bool has_tasks = false;  // or has had some, in this region
    // Who waits and may want a task, or give one: wanted_by() tells; none is missing.
    std::set<pid_t> takers, givers;
  };
  struct Lock {
    uint64_t owner = 0;
    uint64_t depth = 0;
    std::deque<pid_t> waiters;
  };

  static void put(PackedWriter& out, const Team& team);
  static void get(PackedReader& in, Team& team);

  void carry_out(pid_t tid, const TeamWords& words);
  void answer(pid_t tid, int64_t result, const TeamWords& words = {});
  void dock(pid_t tid, Team& team, bool has_ended_region);
  void begin(pid_t tid, Team& team, const TeamWords& words);
  void begin_if_complete(Team& team);
  static bool is_bound(const Team& team) { return (team.region[3] & kTeamBound) != 0; }
  void choose_members(Team& team);
  static void forget_roster(Team& team);
  static void keep_numbers(Team& team);
  void count_on_nodes(Team& team);
  void end_if_complete(Team& team);
  void barrier(pid_t tid, Team& team, const TeamWords& words);
  void tell_last_node(uint64_t key, Team& team);
  void end_barrier(uint64_t key, Team& team);
  void cancel(Team& team);
  void dismiss(Team& team);
  void single(pid_t tid, Team& team, uint64_t construct);
  void next(pid_t tid, Team& team, const TeamWords& words);
  void post(Team& team, const TeamWords& words);
  void await(pid_t tid, Team& team, const TeamWords& words);
  void claim(pid_t tid, Team& team, uint64_t construct);
  void publish(Team& team, const TeamWords& words);
  void leave(pid_t tid, Team& team, uint64_t construct);
  void lock(pid_t tid, const TeamWords& words);
  void unlock(uint64_t key);

  std::optional<TeamTasks::Wanted> wanted_by(pid_t tid, uint64_t key, const Team& team) const;
  bool is_one_of_several_waiting(pid_t tid, uint64_t key, const Team& team) const;
  void note_waiting(pid_t tid, uint64_t key, Team& team);
  void give_task(pid_t tid, Team& team, const TeamWords& words);
  void hand_on(NodeId node, uint64_t key, Team& team);
  bool hand_task(pid_t tid, uint64_t key, Team& team);
  void wait_for_task(pid_t tid, Team& team, const TeamWords& words);
  bool tell_news(pid_t tid, Team& team);
  void look_for_task(pid_t tid, uint64_t key, Team& team);
  void task_over(Team& team, const TeamWords& words);
  void fulfill(Team& team, const TeamWords& words);

  std::map<pid_t, Call> waiting_;
  std::map<pid_t, Last> last_;
  std::map<pid_t, NodeId> nodes_;  // of those who docked or began
  std::function<bool(const LastNode&)> tell_last_;
  std::function<void(uint64_t)> tell_first_task_;
  std::map<uint64_t, Team> teams_;
  std::map<uint64_t, Lock> locks_;
};

}  // namespace krg
