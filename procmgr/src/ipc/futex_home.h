// FutexHome: keeps the queues of those who wait for words of shared memory, where this node is the
// lowest that lives, and sees to it that every node has as many bells (futex_bells.h) at a word as
// programs wait for it, or more: a wake rings them, and is answered for the first of the queue.
// What it thinks that a node has is never more than it has: both leave out what would make it
// negative, and a node does so earlier.
//
// Threads: the loop's thread. Owned by Ipc.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <set>

#include "alive.h"
#include "futex_queues.h"
#include "krg/procmgr/node_context.h"

namespace krg {

class FutexHome {
 public:
  explicit FutexHome(NodeContext& node);
  FutexHome(const FutexHome&) = delete;
  FutexHome& operator=(const FutexHome&) = delete;

  size_t waiting_count() const { return queues_.size(); }

 private:
  void tell(const FutexQueues::Wakes& woken);
  void hang_bells(const SharedPlace& place, std::function<void()> done);
  void take_bells_later(const SharedPlace& place);
  void take_bells();
  void rung(NodeId node, const SharedPlace& place, uint32_t count);

  NodeContext& node_;
  FutexQueues queues_;
  std::map<SharedPlace, std::map<NodeId, size_t>> bells_;
  std::set<SharedPlace> too_many_;  // bells, perhaps
  EventLoop::Timer take_timer_;
  Alive alive_;
};

}  // namespace krg
