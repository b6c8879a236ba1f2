// ClientBarriers: barriers between programs on any nodes (client.h, SharedBarrier).
//
// Who joins a barrier asks the lowest living node, which answers all of them when there are as many
// as the barrier has members. From then on the nodes that have members talk to each other alone: in
// step k of a round a node whose members have all come tells the one that is 2^k places after it in
// the ring of these nodes, and waits for word of the one that is as far before it; after
// log2(nodes) steps, rounded up, everybody has come. Between two nodes that is one message each
// way.
//
// A member that goes ends the barrier after the last round to which it came, a node that dies after
// the last round that is over here; whoever waits for a later one is told so (EOWNERDEAD), as is
// who joins while one that had joined before goes.
//
// Threads: the loop's thread. Owned by KddmService. Messages: runtime/README.md.
// Source: Hensgen, Finkel, Manber, "Two Algorithms for Barrier Synchronization" (dissemination).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "krg/runtime/messenger.h"

namespace krg {

inline constexpr unsigned kMaxBarrierMembers = 1u << 20;

class ClientBarriers {
 public:
  using Done = std::function<void(Status)>;

  explicit ClientBarriers(Messenger& messenger);
  ~ClientBarriers();
  ClientBarriers(const ClientBarriers&) = delete;
  ClientBarriers& operator=(const ClientBarriers&) = delete;

  // A new member of the barrier of that name, for this node; `done` runs, never inside this call,
  // when there are `members`.
  // Errors: EINVAL (a name or number out of bounds, or others have joined with another number),
  // EOWNERDEAD.
  uint64_t join(std::string_view name, uint64_t members, Done done);
  // `done` runs when all members have come to this round. Errors: EINVAL (no such member), EBUSY
  // (it waits already), EOWNERDEAD.
  void wait(uint64_t member, Done done);
  // What it waits for is forgotten. Does nothing to who is no member.
  void leave(uint64_t member);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace krg
