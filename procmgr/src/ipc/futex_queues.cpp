// SPDX-License-Identifier: GPL-2.0-or-later
#include "futex_queues.h"

#include <algorithm>

namespace krg {

void FutexQueues::wait(const SharedPlace& place, const IpcTicket& ticket, uint32_t bits) {
  queues_[place].push_back({ticket, bits});
  places_[ticket] = place;
}

std::optional<SharedPlace> FutexQueues::leave(const IpcTicket& ticket) {
  auto place = places_.extract(ticket);
  if (place.empty()) return std::nullopt;
  remove(place.mapped(), ticket);
  return place.mapped();
}

void FutexQueues::remove(const SharedPlace& place, const IpcTicket& ticket) {
  auto queue = queues_.find(place);
  std::erase_if(queue->second, [&](const Waiter& waiter) { return waiter.ticket == ticket; });
  if (queue->second.empty()) queues_.erase(queue);
}

FutexQueues::Wakes FutexQueues::wake(const SharedPlace& place, uint32_t count, uint32_t bits) {
  Wakes woken;
  auto queue = queues_.find(place);
  if (queue == queues_.end()) return woken;
  for (auto at = queue->second.begin(); at != queue->second.end() && woken.size() < count;) {
    if ((at->bits & bits) == 0) {
      ++at;
      continue;
    }
    woken.push_back({at->ticket, place});
    places_.erase(at->ticket);
    at = queue->second.erase(at);
  }
  if (queue->second.empty()) queues_.erase(queue);
  return woken;
}

size_t FutexQueues::requeue(const SharedPlace& from, const SharedPlace& to, uint32_t count) {
  auto queue = queues_.find(from);
  if (queue == queues_.end() || from == to) return 0;
  Queue& target = queues_[to];
  size_t moved = 0;
  for (; moved < count && !queue->second.empty(); ++moved) {
    places_[queue->second.front().ticket] = to;
    target.splice(target.end(), queue->second, queue->second.begin());
  }
  if (target.empty()) queues_.erase(to);
  if (queue->second.empty()) queues_.erase(queue);
  return moved;
}

size_t FutexQueues::waiting_at(const SharedPlace& place) const {
  auto queue = queues_.find(place);
  return queue == queues_.end() ? 0 : queue->second.size();
}

void FutexQueues::node_failed(NodeId node) {
  std::vector<IpcTicket> gone;
  for (const auto& [ticket, place] : places_)
    if (ticket.node == node) gone.push_back(ticket);
  for (const IpcTicket& ticket : gone) leave(ticket);
}

}  // namespace krg
