// SPDX-License-Identifier: GPL-2.0-or-later
#include "futex_home.h"

#include "futex_messages.h"
#include "gather.h"
#include "krg/runtime/log.h"

namespace krg {

using namespace futex_messages;

// So long bells hang for a next waiter when one has gone.
constexpr std::chrono::milliseconds kKeepBells{2};

FutexHome::FutexHome(NodeContext& node) : node_(node) {
  Messenger& messenger = node.messenger;
  messenger.on_request<QueueWaiter>(
      [this](NodeId from, const QueueWaiter& message, std::string_view, Messenger::Reply reply) {
        queues_.wait(message.place.value(), {from, message.ticket}, message.bits);
        hang_bells(message.place.value(), [reply = shared(std::move(reply))] { reply->ok(); });
      });
  messenger.on_request<LeaveQueue>(
      [this](NodeId from, const LeaveQueue& message, std::string_view, Messenger::Reply reply) {
        const auto left = queues_.leave({from, message.ticket});
        if (left) take_bells_later(*left);
        const char waited = left ? 1 : 0;
        reply.ok({&waited, 1});
      });
  messenger.on_request<WakeWaiters>(
      [this](NodeId, const WakeWaiters& message, std::string_view, Messenger::Reply reply) {
        const SharedPlace place = message.place.value(), to = message.to.value();
        const auto woken = queues_.wake(place, message.wake, message.bits);
        size_t count = woken.size();
        if (message.move > 0) count += queues_.requeue(place, to, message.move);
        tell(woken);
        take_bells_later(place);
        auto answer = [count, reply = shared(std::move(reply))] {
          reply->ok(ipc_bytes(static_cast<int64_t>(count)));
        };
        if (message.move == 0) return answer();
        hang_bells(to, std::move(answer));
      });
  messenger.on<BellsRung>([this](NodeId from, const BellsRung& message, std::string_view) {
    rung(from, message.place.value(), message.count);
  });
  messenger.on_peer_failure(alive_.guard([this](NodeId failed) {
    queues_.node_failed(failed);
    for (auto& [place, nodes] : bells_) {
      nodes.erase(failed);
      take_bells_later(place);
    }
  }));
}

void FutexHome::tell(const FutexQueues::Wakes& woken) {
  for (const auto& [ticket, place] : woken) {
    WaiterWoken message;
    message.ticket = ticket.number;
    message.place = Place::of(place);
    if (!node_.messenger.send(ticket.node, message))
      log_debug("ipc", "node {} has failed", ticket.node.value);
  }
}

void FutexHome::hang_bells(const SharedPlace& place, std::function<void()> done) {
  const size_t wanted = queues_.waiting_at(place);
  std::map<NodeId, size_t>& bells = bells_[place];
  std::vector<NodeId> nodes;
  for (NodeId node : living_nodes(node_.messenger))
    if (bells[node] < wanted) nodes.push_back(node);
  gather<std::string>(
      nodes,
      [&](NodeId node, std::function<void(Result<std::string>)> answered) {
        HangBells message;
        message.count = static_cast<uint32_t>(wanted - std::exchange(bells[node], wanted));
        message.place = Place::of(place);
        node_.messenger.request(node, message, {}, std::move(answered));
      },
      [done = std::move(done)](const NodeAnswers<std::string>&) { done(); });
}

void FutexHome::take_bells_later(const SharedPlace& place) {
  if (!bells_.contains(place)) return;
  too_many_.insert(place);
  if (!take_timer_) take_timer_ = node_.loop.after(kKeepBells, [this] { take_bells(); });
}

void FutexHome::take_bells() {
  take_timer_.reset();
  for (const SharedPlace& place : std::exchange(too_many_, {})) {
    const size_t wanted = queues_.waiting_at(place);
    TakeBells message;
    message.place = Place::of(place);
    for (auto& [node, bells] : bells_[place]) {
      if (wanted > 0 && bells <= wanted) continue;
      message.count =
          wanted == 0 ? TakeBells::kAll : static_cast<uint32_t>(bells - std::min(bells, wanted));
      bells = wanted;
      if (!node_.messenger.send(node, message)) log_debug("ipc", "node {} has failed", node.value);
    }
    if (wanted == 0) bells_.erase(place);
  }
}

// One that rings for nobody stands for a waiter that has gone meanwhile.
void FutexHome::rung(NodeId node, const SharedPlace& place, uint32_t count) {
  if (auto found = bells_.find(place); found != bells_.end()) {
    size_t& bells = found->second[node];
    bells -= std::min<size_t>(bells, count);
  }
  tell(queues_.wake(place, count, ~0u));
  take_bells_later(place);
}

}  // namespace krg
