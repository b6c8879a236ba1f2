// FutexHome: keeps the queues of those who wait for words of shared memory, where this node is the
// lowest that lives. Threads: the loop's thread. Owned by Ipc.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

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

  NodeContext& node_;
  FutexQueues queues_;
  Alive alive_;
};

}  // namespace krg
