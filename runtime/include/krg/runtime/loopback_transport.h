// LoopbackFabric: N nodes in one process on one EventLoop, for tests of protocols. A seed makes it
// shuffle: messages of different pairs, and one-sided operations, overtake each other and are
// delayed, reproducibly; messages of one pair never are. Nodes can be killed, with or without
// notice to the others, and stopped from taking messages. Owner: the test; it outlives the
// Transports' users. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <optional>

#include "krg/runtime/transport.h"

namespace krg {

class LoopbackFabric {
 public:
  struct Options {
    unsigned nodes = 2;
    // None: everything arrives in the order in which it was sent.
    std::optional<uint64_t> seed = std::nullopt;
    // With a seed: up to so many other deliveries go ahead of one that could be made.
    unsigned max_delay_steps = 8;
    size_t send_queue_limit_bytes = 4u << 20;
  };
  enum class Death {
    kNoticed,  // the others' transports report it, as a closed connection would make them
    kSilent,   // nothing arrives any more, and nobody is told
  };

  LoopbackFabric(EventLoop& loop, Options options);
  ~LoopbackFabric();
  LoopbackFabric(const LoopbackFabric&) = delete;
  LoopbackFabric& operator=(const LoopbackFabric&) = delete;

  Transport& node(NodeId id);
  // From now on nothing reaches or leaves this node; what is under way from and to it is lost.
  void kill(NodeId id, Death death);
  // A node that does not receive leaves messages in its senders' queues (back pressure).
  void set_receiving(NodeId id, bool receiving);

 private:
  class Node;
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace krg
