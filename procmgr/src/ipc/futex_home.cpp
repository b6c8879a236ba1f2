// SPDX-License-Identifier: GPL-2.0-or-later
#include "futex_home.h"

#include "futex_messages.h"
#include "krg/runtime/log.h"

namespace krg {

using namespace futex_messages;

FutexHome::FutexHome(NodeContext& node) : node_(node) {
  Messenger& messenger = node.messenger;
  messenger.on_request<QueueWaiter>(
      [this](NodeId from, const QueueWaiter& message, std::string_view, Messenger::Reply reply) {
        queues_.wait(message.place.value(), {from, message.ticket}, message.bits);
        reply.ok();
      });
  messenger.on_request<LeaveQueue>(
      [this](NodeId from, const LeaveQueue& message, std::string_view, Messenger::Reply reply) {
        const char waited = queues_.leave({from, message.ticket}) ? 1 : 0;
        reply.ok({&waited, 1});
      });
  messenger.on_request<WakeWaiters>(
      [this](NodeId, const WakeWaiters& message, std::string_view, Messenger::Reply reply) {
        const SharedPlace place = message.place.value();
        const auto woken = queues_.wake(place, message.wake, message.bits);
        size_t count = woken.size();
        if (message.move > 0) count += queues_.requeue(place, message.to.value(), message.move);
        tell(woken);
        reply.ok(ipc_bytes(static_cast<int64_t>(count)));
      });
  messenger.on_peer_failure(alive_.guard([this](NodeId failed) { queues_.node_failed(failed); }));
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

}  // namespace krg
