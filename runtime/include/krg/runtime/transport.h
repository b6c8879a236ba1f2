// Transport: what carries messages and one-sided transfers between the nodes. One interface, three
// implementations (ofi, mpi, loopback), one conformance suite (transport_conformance_test.cpp).
//
// - Active messages: a handler id, a small header and a payload; ordered per pair of nodes;
// delivered once.
// - Bulk data one-sided: get/put between registered regions, 64-bit remote atomics. Not ordered
// with messages:
//   a message that announces data is sent from the put's completion.
// - Everything completes in the event loop by callback. A node may send to itself.
// - A peer's death is an event: on_peer_failure; operations under way to it complete with an error.
//
// Threads: every member belongs to the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/result.h"
#include "krg/runtime/types.h"

namespace krg {

using HandlerId = uint16_t;
inline constexpr size_t kMaxHandlers = 256;
inline constexpr size_t kMaxHeaderBytes = 256;
// A message's payload; longer data goes one-sided or in several messages.
inline constexpr size_t kMaxPayloadBytes = 64u << 20;

// Where a registered region can be reached from other nodes; travels inside messages.
struct RemoteRegion {
  uint64_t base = 0;  // what the provider calls the region's first byte
  uint64_t key = 0;
  uint64_t length = 0;  // bytes
};
static_assert(sizeof(RemoteRegion) == 24);

// A region of this node's memory that other nodes may read and write while this object lives.
class MemoryRegion {
 public:
  virtual ~MemoryRegion() = default;
  virtual RemoteRegion remote() const = 0;
  virtual std::span<std::byte> bytes() const = 0;
};

// header and payload are valid during the call only.
using MessageHandler = std::function<void(NodeId from, std::span<const std::byte> header,
                                          std::span<const std::byte> payload)>;
using Completion = std::function<void(Status)>;
using AtomicCompletion = std::function<void(Result<uint64_t> previous)>;

class Transport {
 public:
  virtual ~Transport() = default;

  virtual std::string_view name() const = 0;
  virtual NodeId self() const = 0;
  virtual unsigned node_count() const = 0;
  virtual EventLoop& loop() const = 0;

  // An empty handler takes the one there was out: later messages of this id are dropped.
  // REQUIRES: before the first message of this id arrives. One handler per id.
  virtual void set_handler(HandlerId id, MessageHandler handler) = 0;
  // Queues one message; copies header and payload before it returns.
  // REQUIRES: header.size() <= kMaxHeaderBytes, payload.size() <= kMaxPayloadBytes.
  // Errors: EHOSTDOWN to a failed peer; ENOBUFS when the queue to that peer is over its limit
  // (send_queue_limit_bytes); wait for on_writable then.
  virtual Status send(NodeId to, HandlerId id, std::span<const std::byte> header,
                      std::span<const std::byte> payload) = 0;
  // Called once when the queue to `to` has fallen below half of its limit after an ENOBUFS.
  virtual void on_writable(std::function<void(NodeId to)> writable) = 0;
  virtual size_t send_queue_limit_bytes() const = 0;

  virtual Result<std::unique_ptr<MemoryRegion>> register_memory(std::span<std::byte> bytes) = 0;
  // Copies local.size() bytes from (put: to) `remote` + `offset` on node `from` (`to`). `local`
  // must stay valid until completion; on every implementation it may lie outside of registered
  // regions. Errors in the completion: EHOSTDOWN, ERANGE (outside the region).
  virtual void get(NodeId from, const RemoteRegion& remote, uint64_t offset,
                   std::span<std::byte> local, Completion done) = 0;
  virtual void put(NodeId to, const RemoteRegion& remote, uint64_t offset,
                   std::span<const std::byte> local, Completion done) = 0;
  // 64-bit atomics on an 8-byte aligned word of a region; atomic among all nodes' atomics on that
  // word.
  virtual void fetch_add(NodeId at, const RemoteRegion& remote, uint64_t offset, uint64_t add,
                         AtomicCompletion done) = 0;
  virtual void compare_swap(NodeId at, const RemoteRegion& remote, uint64_t offset,
                            uint64_t expected, uint64_t desired, AtomicCompletion done) = 0;

  // Called once for each peer found dead, whatever operation found it. The mpi transport finds none
  // itself: it only tells of those that mark_failed() declared.
  virtual void on_peer_failure(std::function<void(NodeId)> failed) = 0;
  // Declares a peer dead (heartbeats found it): fails what is under way to it and later sends.
  virtual void mark_failed(NodeId peer) = 0;
};

}  // namespace krg
