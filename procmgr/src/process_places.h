// ProcessPlaces: the coherent part of the process table: a KDDM set that has, for each process that
// executes elsewhere than at its home, where it does. The home writes and removes a record; who has
// looked one up keeps a copy until then, so that it can ask the right node at once.
//
// Threads: the loop's thread. Owned by ProcessTable; the Kddm outlives it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "alive.h"
#include "krg/procmgr/node_context.h"
#include "krg/shmem/kddm.h"

namespace krg {

// Its block b is the pids of node b, which manages their records.
inline constexpr SetId kProcessPlaces{uint64_t{0x5054} << 48};

class ProcessPlaces {
 public:
  ProcessPlaces(NodeContext& node, Kddm& kddm);
  ProcessPlaces(const ProcessPlaces&) = delete;
  ProcessPlaces& operator=(const ProcessPlaces&) = delete;

  // At the home: `pid` executes on `where`; kNoNode: here again, or not at all.
  void tell(pid_t pid, NodeId where);
  // `known` runs when no node has a copy any more that says otherwise than the last tell().
  void when_known(pid_t pid, std::function<void()> known);

  // Elsewhere: what this node's copy of the record says; none: ask the home.
  std::optional<NodeId> copy_of(pid_t pid) const;
  // Has the record brought here, for the next time.
  void fetch(pid_t pid);

  // The home of these pids is dead, and its processes are with it.
  void forget_node(NodeId home);

 private:
  // Calls on one object are made one after the other; the last wish counts.
  struct Telling {
    NodeId wanted = kNoNode;
    NodeId told = kNoNode;
    std::vector<std::function<void()>> waiting = {};
  };
  void tell_next(pid_t pid);
  void on_told(pid_t pid);

  NodeContext& node_;
  Kddm& kddm_;
  std::map<pid_t, Telling> telling_;
  Alive alive_;
};

}  // namespace krg
