// MessageStreams: the half of a transport that ofi and mpi share. It cuts messages into frames and
// puts them together again, queues what the wire does not take yet, and delivers to this node
// itself. What moves frames is a FrameCarrier: it keeps the order of frames per pair of nodes.
// Owner: the transport. Threads: the loop's thread.
// Invariants: a peer's queue is sent in order, one message at a time; handlers and on_writable run
// from the loop, never inside send().
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "krg/runtime/transport.h"

namespace krg {

// Handler ids of the transports themselves, above those of their users.
inline constexpr HandlerId kOneSidedRequest = kMaxHandlers, kOneSidedReply = kMaxHandlers + 1,
                           kTransferNotice = kMaxHandlers + 2;
inline constexpr size_t kAllHandlers = kMaxHandlers + 3;

// How many bytes may wait for one peer unless told otherwise.
inline constexpr size_t kSendQueueLimitBytes = 4u << 20;

// Starts every frame. The first frame of a message goes on with its header and the first part of
// its payload, later ones with the following parts.
struct FrameHeader {
  static constexpr uint8_t kVersion = 1;
  uint8_t version = kVersion;
  uint8_t continues = 0;  // 1: a later part of the message under way
  uint16_t from = 0;      // the sender's node id
  HandlerId handler = 0;
  uint16_t header_bytes = 0;
  uint32_t payload_bytes = 0;  // of the whole message
  uint32_t sequence = 0;       // counts the frames from one node to another
};
static_assert(sizeof(FrameHeader) == 16);
inline constexpr size_t kMinFrameBytes = sizeof(FrameHeader) + kMaxHeaderBytes + 64;

// Whose frame it is, and which. Errors: it is not ours.
struct FrameOrder {
  NodeId from;
  uint32_t sequence;
};
Result<FrameOrder> order_of(std::span<const std::byte> frame, unsigned nodes);

class FrameCarrier {
 public:
  virtual ~FrameCarrier() = default;
  // A buffer for the next frame to `to`, large enough for `wanted` bytes where the carrier has such
  // frames; empty while as many as may be are in flight.
  virtual std::span<std::byte> acquire(NodeId to, size_t wanted) = 0;
  // Sends the first `length` bytes of the buffer that acquire(to) has just given.
  virtual void post(NodeId to, size_t length) = 0;
};

class MessageStreams {
 public:
  // Whether a message may exceed the queue's limit: the transport's own do, since their number is
  // bounded otherwise.
  enum class Limit { kKeep, kExceed };

  MessageStreams(EventLoop& loop, FrameCarrier& carrier, NodeId self, unsigned nodes);

  void set_handler(HandlerId id, MessageHandler handler);
  void on_writable(std::function<void(NodeId)> writable) { writable_ = std::move(writable); }
  // Errors: as Transport::send.
  Status send(NodeId to, HandlerId id, std::span<const std::byte> header,
              std::span<const std::byte> payload, Limit limit = Limit::kKeep);
  // The carrier can take frames for this peer again. Returns whether anything waited for that.
  bool pump(NodeId to);
  // A frame came. Errors: it breaks the protocol; then *from, when it could be told, is who sent
  // it.
  Status frame_arrived(std::span<const std::byte> frame, NodeId* from);
  // Drops what waits for the peer and what it has begun to send; later frames of it are ignored.
  void fail(NodeId peer);
  bool failed(NodeId peer) const { return peers_.at(peer.value).failed; }
  // As SignsOfLife::heard().
  uint64_t heard(NodeId from) const { return peers_.at(from.value).frames_heard; }

 private:
  // A message that waits for frames.
  struct Outgoing {
    FrameHeader frame;            // the first one's
    bool begun;                   // a first part has gone already, before it had to wait
    std::vector<std::byte> data;  // header, payload; or what is left of them
    size_t sent = 0;
  };
  // A message of which not all frames have come.
  struct Incoming {
    HandlerId handler = 0;
    size_t header_bytes = 0, expected_bytes = 0;
    std::vector<std::byte> data;
  };
  struct Peer {
    std::deque<Outgoing> queue;
    size_t queued_bytes = 0;
    bool wants_writable = false;
    bool failed = false;
    uint32_t next_sequence = 0;  // of what goes there
    uint64_t frames_heard = 0;
    Incoming incoming;
  };

  static constexpr size_t kAllSent = ~size_t{0};
  size_t begin_sending(NodeId to, FrameHeader frame, std::span<const std::byte> header,
                       std::span<const std::byte> payload);
  void deliver_to_self();
  Status first_frame(NodeId from, const FrameHeader& frame, std::span<const std::byte> body);
  Status later_frame(NodeId from, std::span<const std::byte> body);
  void deliver(NodeId from, HandlerId id, std::span<const std::byte> header,
               std::span<const std::byte> payload);

  EventLoop& loop_;
  FrameCarrier& carrier_;
  const NodeId self_;
  std::vector<Peer> peers_;
  std::array<MessageHandler, kAllHandlers> handlers_;
  std::function<void(NodeId)> writable_;
  std::thread::id owner_;  // the loop's thread, as soon as a frame came or may go
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted to the loop
};

}  // namespace krg
