// Membership: who is in the cluster. All nodes of the boot are present; those online form the
// single system; a dead one never comes back. The lowest live node (the leader) decides on the
// online set and tells all: a view, numbered by an epoch. When the leader dies, the next one asks
// everybody for the newest view and goes on from there. Deaths are found by the transport or by
// silence: each live node sends heartbeats to the next one in a ring, and any message is a sign of
// life. They are told to everyone, the dead one too: a node that only stood still learns that it
// was excluded. Owner: krgd's main; outlived by the Messenger. Threads: the loop's thread.
// Invariants: epochs only grow; a dead node is never online; callbacks run from the loop.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "krg/runtime/messenger.h"

namespace krg {

enum class NodeState : uint8_t {
  kPresent,  // alive, but not part of the single system
  kOnline,
  kDead,
};

class Membership {
 public:
  struct Options {
    std::chrono::milliseconds heartbeat_period{1000};
    // A neighbour that was silent for so long is dead.
    std::chrono::milliseconds timeout{10'000};
  };

  // Every node starts with all nodes online. One per Messenger, whose message ids 0 to 4 it takes.
  Membership(Messenger& messenger, Options options);
  explicit Membership(Messenger& messenger) : Membership(messenger, Options{}) {}
  ~Membership();
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

  NodeState state(NodeId node) const;
  bool is_online(NodeId node) const { return state(node) == NodeState::kOnline; }
  std::vector<NodeId> online() const;
  std::vector<NodeId> live() const;
  NodeId leader() const;
  uint64_t epoch() const;

  // Takes a node into or out of the online set; `done` runs when every live node knows, or with an
  // error: EHOSTDOWN when that node is dead, EBUSY when it would leave no node online.
  void set_online(NodeId node, bool online, std::function<void(Status)> done);

  // After the online set has changed here.
  void on_change(std::function<void()> changed);
  // After a node was found dead; before on_change.
  void on_death(std::function<void(NodeId)> died);
  // The others hold this node for dead: it has no place in the cluster any more.
  void on_excluded(std::function<void()> excluded);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace krg
