// LoopbackNodes: the contexts of N nodes in one process, for tests of protocols between them.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/runtime/check.h"
#include "krg/runtime/loopback_transport.h"

namespace krg {

class LoopbackNodes {
 public:
  explicit LoopbackNodes(unsigned count)
      : loop_(make_loop()), workers_(loop_, 1), fabric_(loop_, {.nodes = count}) {
    for (uint16_t i = 0; i < count; ++i) {
      NodeId id{i};
      messengers_.push_back(std::make_unique<Messenger>(fabric_.node(id)));
      contexts_.push_back(std::make_unique<NodeContext>(NodeContext{
          loop_, workers_, *messengers_.back(), id, count, PidRange(id, count), SessionPaths{}}));
    }
  }

  EventLoop& loop() { return loop_; }
  LoopbackFabric& fabric() { return fabric_; }
  NodeContext& operator[](uint16_t id) { return *contexts_[id]; }
  // Runs the loop until `is_done`, for `limit` at the most. False when it is not done then.
  bool run_until(const std::function<bool()>& is_done,
                 std::chrono::milliseconds limit = std::chrono::milliseconds(2000)) {
    auto end = std::chrono::steady_clock::now() + limit;
    while (!is_done() && std::chrono::steady_clock::now() < end)
      loop_.run_once(std::chrono::milliseconds(10));
    return is_done();
  }
  void run_for(std::chrono::milliseconds time) {
    run_until([] { return false; }, time);
  }

 private:
  static EventLoop make_loop() {
    Result<EventLoop> loop = EventLoop::create();
    check(loop.has_value(), "a loop can be made");
    return *std::move(loop);
  }

  EventLoop loop_;
  WorkerPool workers_;
  LoopbackFabric fabric_;
  std::vector<std::unique_ptr<Messenger>> messengers_;
  std::vector<std::unique_ptr<NodeContext>> contexts_;
};

}  // namespace krg
