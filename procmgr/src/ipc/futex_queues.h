// FutexQueues: who waits for which word of shared memory, as a pure state machine. What the words
// hold is not known here: a waiter first queues, then looks at the word, and leaves when it is not
// what it expected; so no wake-up in between is lost.
//
// Owned by the FutexHome of the node that keeps the queues. Source: futex(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <list>
#include <map>
#include <optional>
#include <vector>

#include "ipc_call.h"
#include "krg/procmgr/shared_memory.h"

namespace krg {

class FutexQueues {
 public:
  struct Woken {
    IpcTicket ticket;
    SharedPlace place;  // where it waited
    bool operator==(const Woken&) const = default;
  };
  using Wakes = std::vector<Woken>;

  void wait(const SharedPlace& place, const IpcTicket& ticket, uint32_t bits);
  // Where it waited; nothing when it does not wait any more: it has been woken.
  std::optional<SharedPlace> leave(const IpcTicket& ticket);
  // Takes out the first `count` waiters that have one of `bits`.
  Wakes wake(const SharedPlace& place, uint32_t count, uint32_t bits);
  // Moves the first `count` waiters to the end of another place's queue; how many there were.
  size_t requeue(const SharedPlace& from, const SharedPlace& to, uint32_t count);
  void node_failed(NodeId node);
  size_t waiting_at(const SharedPlace& place) const;
  size_t size() const { return places_.size(); }

 private:
  struct Waiter {
    IpcTicket ticket;
    uint32_t bits;
  };
  using Queue = std::list<Waiter>;
  void remove(const SharedPlace& place, const IpcTicket& ticket);

  std::map<SharedPlace, Queue> queues_;      // none of them empty
  std::map<IpcTicket, SharedPlace> places_;  // of every waiter
};

}  // namespace krg
