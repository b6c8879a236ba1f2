// SPDX-License-Identifier: GPL-2.0-or-later
#include "kddm_outbox.h"

#include <algorithm>
#include <utility>

#include "krg/runtime/check.h"
#include "krg/runtime/log.h"

namespace krg::kddm {
namespace {

// A batch is closed when it has so many bytes, so that the receiver starts before all is sent.
constexpr size_t kBatchBytes = 256u << 10;

}  // namespace

void Outbox::add(NodeId to, const Wire& wire, std::string payload) {
  check(depth_ > 0, "messages are sent from inside of a scope");
  ++added_;
  queue_.push_back({to, wire, std::move(payload)});
}

void Outbox::let_go() {
  holding_ = false;
  if (depth_ == 0) flush();
}

void Outbox::flush() {
  before_sending_();
  if (holding_ || queue_.empty()) return;
  std::vector<Outgoing> messages = std::exchange(queue_, {});
  if (messages.size() > 1)
    std::stable_sort(messages.begin(), messages.end(),
                     [](const Outgoing& a, const Outgoing& b) { return a.to < b.to; });
  for (Position begin = messages.begin(); begin != messages.end();) {
    const Position end =
        std::find_if(begin, messages.cend(), [&](const Outgoing& m) { return m.to != begin->to; });
    send_run(begin, end);
    begin = end;
  }
  messages.clear();
  if (queue_.empty()) queue_ = std::move(messages);  // keeps the storage
}

// Messages to one node.
void Outbox::send_run(Position begin, Position end) {
  while (begin != end) {
    size_t bytes = 0;
    Position batch_end = begin;
    while (batch_end != end && bytes < kBatchBytes)
      bytes += sizeof(Wire) + (batch_end++)->payload.size();
    ++sent_;
    if (batch_end - begin == 1) {
      report(messenger_.send(begin->to, begin->wire, begin->payload), *begin);
    } else {
      send_batch(begin, batch_end);
    }
    begin = batch_end;
  }
}

void Outbox::send_batch(Position begin, Position end) {
  size_t bytes = 0;
  for (Position at = begin; at != end; ++at)
    bytes += sizeof(Wire) + sizeof(uint32_t) + at->payload.size();
  std::string payload;
  payload.reserve(bytes);
  for (Position at = begin; at != end; ++at) append_to_batch(payload, at->wire, at->payload);
  report(messenger_.send(begin->to, Batch{.count = static_cast<uint32_t>(end - begin)}, payload),
         *begin);
}

void Outbox::report(const Status& sent, const Outgoing& message) const {
  // A failed node's part is taken over by others (kddm_recovery_run.h).
  if (sent || sent.error().errno_or(0) == EHOSTDOWN) return;
  log_error("kddm", "set {} object {}: to node {}: {}", message.wire.set, message.wire.object,
            message.to.value, sent.error().message());
}

}  // namespace krg::kddm
