// SPDX-License-Identifier: GPL-2.0-or-later
#include "message_streams.h"

#include <algorithm>
#include <cstring>

namespace krg {
namespace {

// Copies one span after the other to `to`; returns where the copy ended.
std::byte* append(std::byte* to, std::span<const std::byte> bytes) {
  if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
  return to + bytes.size();
}
// Fills `to` with what header and payload, one behind the other, have from `offset` on.
void copy_part(std::span<std::byte> to, size_t offset, std::span<const std::byte> header,
               std::span<const std::byte> payload) {
  const auto first = header.subspan(std::min(offset, header.size()));
  const size_t from_header = std::min(first.size(), to.size());
  const size_t payload_offset = offset + from_header - header.size();
  std::byte* at = append(to.data(), first.first(from_header));
  if (from_header < to.size()) append(at, payload.subspan(payload_offset, to.size() - from_header));
}
std::span<const std::byte> bytes_of(const FrameHeader& frame) {
  return std::as_bytes(std::span(&frame, 1));
}

constexpr const char* kNotOurs = "a frame that is not ours";
bool read_header(std::span<const std::byte> bytes, size_t nodes, FrameHeader& frame) {
  if (bytes.size() < sizeof frame) return false;
  std::memcpy(&frame, bytes.data(), sizeof frame);
  return frame.version == FrameHeader::kVersion && frame.from < nodes;
}

}  // namespace

Result<FrameOrder> order_of(std::span<const std::byte> bytes, unsigned nodes) {
  FrameHeader frame;
  if (!read_header(bytes, nodes, frame)) return text_error(kNotOurs);
  return FrameOrder{NodeId{frame.from}, frame.sequence};
}

MessageStreams::MessageStreams(EventLoop& loop, FrameCarrier& carrier, NodeId self, unsigned nodes)
    : loop_(loop), carrier_(carrier), self_(self), peers_(nodes) {}

void MessageStreams::set_handler(HandlerId id, MessageHandler handler) {
  check(id < kAllHandlers, "a handler id is below kMaxHandlers");
  handlers_[id] = std::move(handler);
}

Status MessageStreams::send(NodeId to, HandlerId id, std::span<const std::byte> header,
                            std::span<const std::byte> payload, Limit limit) {
  check(id < kAllHandlers && header.size() <= kMaxHeaderBytes && payload.size() <= kMaxPayloadBytes,
        "a message keeps its limits");
  check(owner_ == std::thread::id() || owner_ == std::this_thread::get_id(),
        "messages are sent by the loop's thread");
  Peer& peer = peers_.at(to.value);
  if (peer.failed) return errno_error("send to a failed node", EHOSTDOWN);
  FrameHeader frame{.from = self_.value,
                    .handler = id,
                    .header_bytes = static_cast<uint16_t>(header.size()),
                    .payload_bytes = static_cast<uint32_t>(payload.size())};
  const bool first = peer.queue.empty();
  const size_t whole = header.size() + payload.size();
  const auto begun = first && to != self_ ? begin_sending(to, frame, header, payload) : 0;
  if (begun == kAllSent || peer.failed) return {};
  if (peer.queued_bytes >= kSendQueueLimitBytes && limit == Limit::kKeep) {
    peer.wants_writable = true;
    return errno_error("send queue full", ENOBUFS);
  }
  Outgoing& message = peer.queue.emplace_back(Outgoing{frame, begun > 0, {}});
  message.data.resize(whole - begun);
  copy_part(message.data, begun, header, payload);
  peer.queued_bytes += sizeof(FrameHeader) + message.data.size();
  if (!first) return {};
  if (to != self_) {
    pump(to);
  } else {
    loop_.post([this, alive = std::weak_ptr(alive_)] {
      if (alive.lock()) deliver_to_self();
    });
  }
  return {};
}

// The short way: no copy but the one into the frames. Sends as much as there are frames for;
// returns how many bytes of header and payload that was, or kAllSent.
size_t MessageStreams::begin_sending(NodeId to, FrameHeader frame,
                                     std::span<const std::byte> header,
                                     std::span<const std::byte> payload) {
  const size_t whole = header.size() + payload.size();
  size_t sent = 0;
  do {
    auto buffer = carrier_.acquire(to, sizeof frame + whole - sent);
    if (buffer.empty()) return sent;
    frame.continues = sent > 0;
    frame.sequence = peers_[to.value].next_sequence++;
    const size_t part = std::min(whole - sent, buffer.size() - sizeof frame);
    std::byte* const body = append(buffer.data(), bytes_of(frame));
    if (part == whole)
      append(append(body, header), payload);
    else
      copy_part({body, part}, sent, header, payload);
    sent += part;
    carrier_.post(to, sizeof frame + part);
  } while (sent < whole && !peers_[to.value].failed);
  return kAllSent;
}

bool MessageStreams::pump(NodeId to) {
  owner_ = std::this_thread::get_id();
  Peer& peer = peers_[to.value];
  const bool anything_waits = !peer.queue.empty() || peer.wants_writable;
  while (!peer.queue.empty()) {
    Outgoing& message = peer.queue.front();
    auto buffer = carrier_.acquire(to, sizeof(FrameHeader) + message.data.size() - message.sent);
    if (buffer.empty()) break;
    FrameHeader frame = message.frame;
    frame.continues = message.begun || message.sent > 0;
    frame.sequence = peer.next_sequence++;
    auto part = std::span<const std::byte>(message.data).subspan(message.sent);
    part = part.first(std::min(part.size(), buffer.size() - sizeof frame));
    append(append(buffer.data(), bytes_of(frame)), part);
    message.sent += part.size();
    if (message.sent == message.data.size()) {
      peer.queued_bytes -= sizeof(FrameHeader) + message.data.size();
      peer.queue.pop_front();
    }
    carrier_.post(to, sizeof frame + part.size());
  }
  if (!peer.wants_writable || peer.queued_bytes >= kSendQueueLimitBytes / 2) return anything_waits;
  peer.wants_writable = false;
  loop_.post([this, to, alive = std::weak_ptr(alive_)] {
    if (alive.lock() && writable_ && !peers_[to.value].failed) writable_(to);
  });
  return anything_waits;
}

void MessageStreams::deliver_to_self() {
  Peer& peer = peers_[self_.value];
  auto batch = std::exchange(peer.queue, {});
  peer.queued_bytes = 0;
  const bool tell_writable = std::exchange(peer.wants_writable, false);
  auto alive = std::weak_ptr(alive_);
  for (auto& message : batch) {
    auto data = std::span<const std::byte>(message.data);
    deliver(self_, message.frame.handler, data.first(message.frame.header_bytes),
            data.subspan(message.frame.header_bytes));
    if (alive.expired()) return;
  }
  if (tell_writable && writable_) writable_(self_);
}

Status MessageStreams::frame_arrived(std::span<const std::byte> bytes, NodeId* from) {
  *from = kNoNode;
  owner_ = std::this_thread::get_id();
  FrameHeader frame;
  if (!read_header(bytes, peers_.size(), frame)) return text_error(kNotOurs);
  *from = NodeId{frame.from};
  if (peers_[frame.from].failed) return {};
  ++peers_[frame.from].frames_heard;
  auto body = bytes.subspan(sizeof frame);
  return frame.continues ? later_frame(*from, body) : first_frame(*from, frame, body);
}

Status MessageStreams::first_frame(NodeId from, const FrameHeader& frame,
                                   std::span<const std::byte> body) {
  Incoming& incoming = peers_[from.value].incoming;
  const size_t whole = size_t{frame.header_bytes} + frame.payload_bytes;
  if (incoming.expected_bytes > 0 || frame.handler >= kAllHandlers ||
      frame.header_bytes > kMaxHeaderBytes || frame.payload_bytes > kMaxPayloadBytes ||
      body.size() > whole)
    return text_error("a frame that breaks the protocol");
  if (body.size() == whole) {
    deliver(from, frame.handler, body.first(frame.header_bytes), body.subspan(frame.header_bytes));
    return {};
  }
  incoming.handler = frame.handler;
  incoming.header_bytes = frame.header_bytes;
  incoming.expected_bytes = whole;
  incoming.data.reserve(whole);
  incoming.data.assign(body.begin(), body.end());
  return {};
}

Status MessageStreams::later_frame(NodeId from, std::span<const std::byte> body) {
  Incoming& incoming = peers_[from.value].incoming;
  if (incoming.data.size() + body.size() > incoming.expected_bytes)
    return text_error("a message longer than announced");
  incoming.data.insert(incoming.data.end(), body.begin(), body.end());
  if (incoming.data.size() < incoming.expected_bytes) return {};
  Incoming whole = std::exchange(incoming, {});
  auto data = std::span<const std::byte>(whole.data);
  deliver(from, whole.handler, data.first(whole.header_bytes), data.subspan(whole.header_bytes));
  return {};
}

void MessageStreams::deliver(NodeId from, HandlerId id, std::span<const std::byte> header,
                             std::span<const std::byte> payload) {
  if (const auto& handler = handlers_[id]) handler(from, header, payload);
}

void MessageStreams::fail(NodeId node) {
  Peer& peer = peers_.at(node.value);
  peer = {};
  peer.failed = true;
}

}  // namespace krg
