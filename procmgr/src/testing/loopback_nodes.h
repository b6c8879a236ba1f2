// LoopbackNodes: several nodes' contexts in one process, over the loopback transport, for tests of
// what krgd's parts say to each other. They share one kernel: one pid space, one procfs. Each pid
// that the tests' own processes are likely to have is the first node's.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/runtime/loopback_transport.h"

namespace krg::testing {

class LoopbackNodes {
 public:
  explicit LoopbackNodes(unsigned count)
      : loop_(std::move(*EventLoop::create())),
        workers_(loop_, 4),
        fabric_(loop_, {.nodes = count}) {
    for (unsigned i = 0; i < count; ++i) {
      const NodeId id{static_cast<uint16_t>(i)};
      messengers_.push_back(std::make_unique<Messenger>(fabric_.node(id)));
      contexts_.push_back(
          std::make_unique<NodeContext>(NodeContext{loop_,
                                                    workers_,
                                                    *messengers_.back(),
                                                    id,
                                                    count,
                                                    PidRange(id, std::max(count, 2u), kPidBits),
                                                    {}}));
    }
  }
  NodeContext& operator[](size_t i) { return *contexts_.at(i); }
  EventLoop& loop() { return loop_; }
  LoopbackFabric& fabric() { return fabric_; }

  // Runs the loop until `reached` holds; false after five seconds.
  template <class Condition>
  bool run_until(Condition reached) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (!reached()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      loop_.run_once(std::chrono::milliseconds(5));
    }
    return true;
  }

 private:
  EventLoop loop_;
  WorkerPool workers_;
  LoopbackFabric fabric_;
  std::vector<std::unique_ptr<Messenger>> messengers_;
  std::vector<std::unique_ptr<NodeContext>> contexts_;
};

}  // namespace krg::testing
