// LocalBarriers: members of OpenMP teams on a node that is not the home of their process, and the
// barriers at which they wait. Home is told of members when all of the node's have come (one
// message), and tells them to go on by one. Home may say so before they have come, when nobody else
// is missing: then they go on as soon as they are all there, without waiting for home. Pure.
//
// A member waits here only for members that are to come to the same barrier. When one leaves (it
// ends the region, goes to another node, is no more), home is told of each of the others by itself
// until they begin another region.
//
// Threads: the loop's thread. Owned by Replica.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

namespace krg {

class LocalBarriers {
 public:
  using Members = std::set<pid_t>;
  struct Told {
    Members members;     // of whom home is to be told in one message; empty: nobody yet
    bool go_on = false;  // they go on at once
    uint64_t word = 0;   // then: what the barrier tells them
  };

  // A worker begins a region of the team.
  void enter(pid_t tid, uint64_t team);
  // It is no member here any more. Those who wait and of whom home has not been told: their calls
  // are to be made one by one.
  Members leave(pid_t tid);
  // Those of the team who wait; their calls, and all others from now on until they enter again, are
  // to be made one by one.
  Members dissolve(uint64_t team);
  // It has come to a barrier, with a word, which is not 0 from one member at the most. None: it is
  // no member here, home is to be told of it by itself.
  std::optional<Told> arrive(pid_t tid, uint64_t team, uint64_t word);
  // Home says that all others are there, of whom one may have had that word. Who goes on now.
  Told go(uint64_t team, const Members& members, uint64_t word);

 private:
  struct Permission {
    Members members;
    uint64_t word;
  };
  struct Team {
    Members members, waiting;            // waiting: home has not been told
    std::vector<Told> told;              // home has been told, a message each; with their word
    uint64_t word = 0;                   // of those who wait
    std::optional<Permission> may_go{};  // for those who have yet to come
    size_t at_barrier() const;
  };

  std::map<uint64_t, Team> teams_;
  std::map<pid_t, uint64_t> team_of_;
};

}  // namespace krg
