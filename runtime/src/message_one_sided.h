// MessageOneSided: get, put and atomics carried out by messages: the target's event loop does the
// work. For providers without one-sided operations or atomics of their own.
// Owner: the transport. Threads: the loop's thread.
// Invariant: each operation completes exactly once, from the loop.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <unordered_map>

#include "message_streams.h"

namespace krg {

class MessageOneSided {
 public:
  MessageOneSided(EventLoop& loop, MessageStreams& streams);

  // Lets other nodes reach `bytes` under the key until withdraw(key).
  void expose(uint64_t key, std::span<std::byte> bytes) { regions_[key] = bytes; }
  void withdraw(uint64_t key) { regions_.erase(key); }

  void get(NodeId from, uint64_t key, uint64_t offset, std::span<std::byte> local, Completion done);
  void put(NodeId to, uint64_t key, uint64_t offset, std::span<const std::byte> local,
           Completion done);
  void fetch_add(NodeId at, uint64_t key, uint64_t offset, uint64_t add, AtomicCompletion done);
  void compare_swap(NodeId at, uint64_t key, uint64_t offset, uint64_t expected, uint64_t desired,
                    AtomicCompletion done);
  // Whether operations of this node are under way.
  bool waiting() const { return !pending_.empty(); }
  // Completes what is under way to the peer with EHOSTDOWN.
  void fail(NodeId peer);

 private:
  enum class Kind : uint8_t { kGet, kPut, kFetchAdd, kCompareSwap };
  struct Request;
  struct Reply;
  struct Pending {
    NodeId peer;
    std::span<std::byte> local;  // of a get
    AtomicCompletion done;
  };

  void transfer(Kind kind, NodeId node, uint64_t key, uint64_t offset, std::span<std::byte> local,
                Completion done);
  void ask(NodeId node, const Request& request, std::span<const std::byte> payload,
           std::span<std::byte> local, AtomicCompletion done);
  void serve(NodeId from, const Request& request, std::span<const std::byte> payload);
  void complete(NodeId from, const Reply& reply, std::span<const std::byte> payload);

  EventLoop& loop_;
  MessageStreams& streams_;
  std::unordered_map<uint64_t, std::span<std::byte>> regions_;
  std::unordered_map<uint64_t, Pending> pending_;
  uint64_t next_call_ = 1;
};

}  // namespace krg
