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
// So is a run; and one without bytes has so many objects at the most.
constexpr size_t kRunBytes = 256u << 10, kRunObjects = 4096;
// A message of so many bytes travels alone, without a copy into a batch.
constexpr size_t kAloneBytes = 32u << 10;

}  // namespace

void Outbox::add(NodeId to, const Wire& wire, std::string payload) {
  Outgoing* run = run_before(to, wire, payload.size());
  if (!run || !run->borrowed.empty()) return append({to, wire, std::move(payload)});
  ++run->wire.run;
  run->payload += payload;
}

void Outbox::add_borrowed(NodeId to, const Wire& wire, std::span<const std::byte> bytes) {
  Outgoing* run = run_before(to, wire, bytes.size());
  if (!run || run->borrowed.data() + run->borrowed.size() != bytes.data()) {
    ++borrowed_;
    return append({to, wire, {}, bytes});
  }
  ++run->wire.run;
  run->borrowed = {run->borrowed.data(), run->borrowed.size() + bytes.size()};
}

// The run that a message with so many bytes goes on, if there is one.
Outbox::Outgoing* Outbox::run_before(NodeId to, const Wire& wire, size_t bytes) {
  check(depth_ > 0, "messages are sent from inside of a scope");
  ++added_;
  const size_t newest = newest_[to.value];
  if (newest == kNothing) return nullptr;
  Outgoing& run = queue_[newest];
  const bool goes_on = kddm::goes_on(run.wire, wire) && run.wire.run < kRunObjects &&
                       run.bytes().size() == run.wire.run * bytes &&
                       run.bytes().size() + bytes <= kRunBytes;
  return goes_on ? &run : nullptr;
}

void Outbox::append(Outgoing message) {
  newest_[message.to.value] = queue_.size();
  queue_.push_back(std::move(message));
}

void Outbox::own() {
  if (std::exchange(borrowed_, 0) == 0) return;
  for (Outgoing& message : queue_) {
    if (message.borrowed.empty()) continue;
    message.payload = message.bytes();
    message.borrowed = {};
  }
}

void Outbox::discard() {
  queue_.clear();
  borrowed_ = 0;
  std::fill(newest_.begin(), newest_.end(), kNothing);
}

void Outbox::let_go() {
  holding_ = false;
  if (depth_ == 0) flush();
}

void Outbox::flush() {
  before_sending_();
  if (holding_) return own();
  if (queue_.empty()) return;
  borrowed_ = 0;
  for (const Outgoing& message : queue_) newest_[message.to.value] = kNothing;
  std::vector<Outgoing> messages = std::exchange(queue_, {});
  std::vector<Own> own = extract_own(messages);
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
  if (!own.empty()) take_own_(std::move(own));
}

std::vector<Outbox::Own> Outbox::extract_own(std::vector<Outgoing>& messages) const {
  std::vector<Own> own;
  const auto others =
      std::stable_partition(messages.begin(), messages.end(),
                            [&](const Outgoing& m) { return m.to != messenger_.self(); });
  for (auto at = others; at != messages.end(); ++at)
    own.push_back(
        {at->wire, at->borrowed.empty() ? std::move(at->payload) : std::string(at->bytes())});
  messages.erase(others, messages.end());
  return own;
}

// Messages to one node.
void Outbox::send_run(Position begin, Position end) {
  while (begin != end) {
    size_t bytes = sizeof(Wire) + begin->bytes().size();
    Position batch_end = begin + 1;
    if (bytes < kAloneBytes)
      while (batch_end != end && bytes < kBatchBytes && batch_end->bytes().size() < kAloneBytes)
        bytes += sizeof(Wire) + (batch_end++)->bytes().size();
    ++sent_;
    if (batch_end - begin == 1) {
      report(messenger_.send(begin->to, begin->wire, begin->bytes()), *begin);
    } else {
      send_batch(begin, batch_end);
    }
    begin = batch_end;
  }
}

void Outbox::send_batch(Position begin, Position end) {
  size_t bytes = 0;
  for (Position at = begin; at != end; ++at)
    bytes += sizeof(Wire) + sizeof(uint32_t) + at->bytes().size();
  std::string payload;
  payload.reserve(bytes);
  for (Position at = begin; at != end; ++at) append_to_batch(payload, at->wire, at->bytes());
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
