// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/shmem/kddm_protocol.h"

#include <algorithm>
#include <array>
#include <utility>

#include "kddm_steps.h"
#include "krg/runtime/check.h"

namespace krg::kddm {

void send(Actions& actions, NodeId to, Message message) {
  actions.push_back({.kind = Action::Kind::kSend, .to = to, .message = std::move(message)});
}

void drop_data(Entry& entry, Actions& actions) {
  if (entry.has_data) actions.push_back({.kind = Action::Kind::kDropData});
  entry.has_data = false;
  entry.drop_when_unpinned = false;
}

bool is_owner(const Entry& entry) {
  return entry.state != State::kInvCopy && entry.state != State::kReadCopy &&
         entry.state != State::kWaitObjRead && entry.state != State::kWaitObjWrite;
}

bool is_at_rest(const Entry& entry) {
  const bool is_settled = entry.state == State::kInvCopy || entry.state == State::kReadCopy ||
                          entry.state == State::kInvOwner || entry.state == State::kReadOwner ||
                          entry.state == State::kWriteOwner;
  return is_settled && entry.waiting.empty() && entry.requests.empty() && entry.removals.empty() &&
         !entry.read_outstanding && !entry.write_outstanding;
}

void finish_removal(Entry& entry, Actions& actions) {
  drop_data(entry, actions);
  entry.state = State::kInvOwner;
  entry.lost = false;
  actions.push_back({.kind = Action::Kind::kRemoved});
  const NodeId remover = std::exchange(entry.remover, kNoNode);
  if (remover != kNoNode) send(actions, remover, {.type = MessageType::kRemoved});
}

namespace {

void complete(Actions& actions, OpId op, Outcome outcome) {
  actions.push_back({.kind = Action::Kind::kComplete, .op = op, .outcome = outcome});
}
void install(Entry& entry, Actions& actions) {
  entry.has_data = true;
  actions.push_back({.kind = Action::Kind::kInstall});
}
void start_first_touch(Entry& entry, Actions& actions) {
  entry.state = State::kInvFilling;
  actions.push_back({.kind = Action::Kind::kFirstTouch});
}

bool is_stable_owner(const Entry& entry) {
  return entry.state == State::kInvOwner || entry.state == State::kReadOwner ||
         entry.state == State::kWriteOwner;
}
bool is_pinned(const Entry& entry) {
  return entry.readers > 0 || entry.writer;
}
bool is_readable(const Entry& entry) {
  return (entry.state == State::kReadCopy || entry.state == State::kReadOwner ||
          entry.state == State::kWriteOwner) &&
         !entry.writer && !entry.drop_when_unpinned;
}

void invalidate_copyset(Entry& entry, NodeId ack_to, NodeId except, uint64_t version,
                        Actions& actions) {
  for (NodeId holder : entry.copyset) {
    if (holder == except) continue;
    send(actions, holder,
         {.type = MessageType::kInvalidate, .requester = ack_to, .version = version});
  }
}

void request_copy(Entry& entry, const Place& place, Actions& actions) {
  entry.state = State::kWaitObjRead;
  if (std::exchange(entry.read_outstanding, true)) return;
  bool first_touch = entry.waiting.empty();  // a prefetch
  entry.asked_for = 0;
  for (const WaitingOp& op : entry.waiting) {
    first_touch |= op.first_touch;
    entry.asked_for = std::max(entry.asked_for, op.op);
  }
  send(actions, place.manager,
       {.type = MessageType::kReadRequest, .requester = place.self, .first_touch = first_touch});
}

void request_ownership(Entry& entry, const Place& place, Actions& actions) {
  entry.state = State::kWaitObjWrite;
  if (std::exchange(entry.write_outstanding, true)) return;
  send(actions, place.manager,
       {.type = MessageType::kWriteRequest,
        .requester = place.self,
        .version = entry.version,
        .has_copy = entry.has_data && !entry.drop_when_unpinned});
}

// The owner's answer to its own first operation when there is no object: make it, or say so.
void serve_without_object(Entry& entry, Actions& actions) {
  const WaitingOp head = entry.waiting.front();
  if (head.first_touch && !entry.lost) return start_first_touch(entry, actions);
  entry.waiting.pop_front();
  complete(actions, head.op, entry.lost ? Outcome::kLost : Outcome::kNoObject);
}

// Serves the local operations at the head of the queue: all gets up to the next grab, or one grab.
// Returns whether anything changed.
bool serve_local_gets(Entry& entry, const Place& place, Actions& actions) {
  if (entry.state == State::kInvOwner) {
    serve_without_object(entry, actions);
    return true;
  }
  if (entry.state == State::kInvCopy) {
    request_copy(entry, place, actions);
    return true;
  }
  if (!is_readable(entry)) return false;
  while (!entry.waiting.empty() && entry.waiting.front().kind == OpKind::kGet) {
    ++entry.readers;
    complete(actions, entry.waiting.front().op, Outcome::kGranted);
    entry.waiting.pop_front();
  }
  return true;
}

bool serve_local_grab(Entry& entry, const Place& place, Actions& actions) {
  switch (entry.state) {
    case State::kInvOwner:
      serve_without_object(entry, actions);
      return true;
    case State::kInvCopy:
    case State::kReadCopy:
      request_ownership(entry, place, actions);
      return true;
    case State::kReadOwner:
      if (is_pinned(entry)) return false;
      ++entry.version;
      invalidate_copyset(entry, place.self, kNoNode, entry.version, actions);
      entry.acks_missing += static_cast<int>(entry.copyset.size());
      entry.copyset.clear();
      entry.state = entry.acks_missing > 0 ? State::kWaitAckInv : State::kWriteOwner;
      return true;
    case State::kWriteOwner:
      if (is_pinned(entry)) return false;
      entry.writer = true;
      complete(actions, entry.waiting.front().op, Outcome::kGranted);
      entry.waiting.pop_front();
      return true;
    default:
      return false;
  }
}

bool serve_local(Entry& entry, const Place& place, Actions& actions) {
  if (entry.waiting.empty()) return false;
  return entry.waiting.front().kind == OpKind::kGet ? serve_local_gets(entry, place, actions)
                                                    : serve_local_grab(entry, place, actions);
}

void hand_ownership_over(Entry& entry, const Message& request, Actions& actions) {
  const NodeId to = request.requester;
  const bool exists = entry.state != State::kInvOwner;
  const bool keeps_copy =
      request.has_copy && entry.copyset.contains(to) && request.version == entry.version;
  const uint32_t acks =
      static_cast<uint32_t>(entry.copyset.size() - (entry.copyset.contains(to) ? 1 : 0));
  ++entry.version;
  invalidate_copyset(entry, to, to, entry.version, actions);
  send(actions, to,
       {.type = MessageType::kOwnership,
        .requester = to,
        .version = entry.version,
        .exists = exists,
        .lost = std::exchange(entry.lost, false),
        .with_data = exists && !keeps_copy,
        .acks = acks,
        .promise = request.promise});
  entry.copyset.clear();
  entry.state = State::kInvCopy;
  drop_data(entry, actions);
}

void begin_removal(Entry& entry, const Place& place, NodeId remover, Actions& actions) {
  entry.remover = remover;
  ++entry.version;
  invalidate_copyset(entry, place.self, kNoNode, entry.version, actions);
  entry.acks_missing += static_cast<int>(entry.copyset.size());
  entry.copyset.clear();
  if (entry.acks_missing > 0) {
    entry.state = State::kWaitObjRmAck;
  } else {
    finish_removal(entry, actions);
  }
}

// Serves the first request of another node. Returns whether anything changed.
bool serve_remote(Entry& entry, const Place& place, Actions& actions) {
  if (!is_stable_owner(entry) || entry.writer) return false;
  const Message request = entry.requests.front();
  if (request.type == MessageType::kReadRequest) {
    if (entry.state == State::kInvOwner && request.first_touch && !entry.lost) {
      start_first_touch(entry, actions);
      return true;
    }
    const bool exists = entry.state != State::kInvOwner;
    send(actions, request.requester,
         {.type = MessageType::kCopy,
          .requester = request.requester,
          .version = entry.version,
          .exists = exists,
          .lost = entry.lost,
          .with_data = exists});
    if (exists) {
      entry.copyset.insert(request.requester);
      entry.state = State::kReadOwner;
    }
    entry.requests.pop_front();
    return true;
  }
  if (entry.readers > 0) return false;
  entry.requests.pop_front();
  if (request.type == MessageType::kWriteRequest) {
    hand_ownership_over(entry, request, actions);
  } else {
    begin_removal(entry, place, request.requester, actions);
  }
  return true;
}

}  // namespace

void progress(Entry& entry, const Place& place, Actions& actions) {
  for (;;) {
    if (entry.serve_remote_first && is_stable_owner(entry) && !entry.requests.empty()) {
      if (!serve_remote(entry, place, actions)) return;
      entry.serve_remote_first = false;
    } else if (serve_local(entry, place, actions)) {
      entry.serve_remote_first = true;
    } else if (entry.requests.empty() || !serve_remote(entry, place, actions)) {
      return;
    }
  }
}

namespace {

void receive_copy(Entry& entry, const Place& place, const Message& message, Actions& actions) {
  entry.read_outstanding = false;
  if (entry.state != State::kWaitObjRead) return;  // ownership came first, unasked for
  entry.state = State::kInvCopy;
  if (!message.exists) {
    // Those that asked for no first touch have their answer; the others ask again, and so do those
    // that came since: there may be an object by now.
    entry.waiting.erase_if([&](const WaitingOp& op) {
      if (op.op > entry.asked_for) return false;
      if (message.lost ? op.kind != OpKind::kGet : op.first_touch) return false;
      complete(actions, op.op, message.lost ? Outcome::kLost : Outcome::kNoObject);
      return true;
    });
    return progress(entry, place, actions);
  }
  // A copy that its invalidation overtook is not used: whoever waits for it asks again.
  if (message.version >= entry.invalid_below) {
    entry.version = message.version;
    install(entry, actions);
    entry.state = State::kReadCopy;
  }
  progress(entry, place, actions);
}

void install_owned(Entry& entry, const Message& message) {
  check(!is_owner(entry), "an object has one owner");
  check(entry.deferred_acks.empty(), "ownership comes after the acks that it waits for");
  entry.version = message.version;
  entry.promise = std::max(entry.promise, message.promise);
  entry.drop_when_unpinned = false;
  entry.serve_remote_first = false;
}

void receive_ownership(Entry& entry, const Place& place, const Message& message, Actions& actions) {
  check(!message.exists || message.with_data || (entry.has_data && !entry.drop_when_unpinned),
        "ownership without data goes to a holder of the current copy");
  install_owned(entry, message);
  entry.write_outstanding = false;
  entry.acks_missing += static_cast<int>(message.acks);
  if (message.exists) {
    if (message.with_data) install(entry, actions);
    entry.state = entry.acks_missing > 0 ? State::kWaitAckWrite : State::kWriteOwner;
  } else {
    entry.state = State::kInvOwner;
    entry.lost = message.lost;
  }
  progress(entry, place, actions);
}

void receive_gift(Entry& entry, const Place& place, const Message& message, Actions& actions) {
  install_owned(entry, message);
  entry.copyset = message.copyset;
  entry.copyset.erase(place.self);
  install(entry, actions);
  entry.state = entry.copyset.empty() ? State::kWriteOwner : State::kReadOwner;
  progress(entry, place, actions);
}

void receive_invalidate(Entry& entry, const Place& place, const Message& message,
                        Actions& actions) {
  check(!is_owner(entry), "nobody invalidates the owner");
  entry.invalid_below = std::max(entry.invalid_below, message.version);
  if (entry.readers > 0) {
    entry.drop_when_unpinned = true;
    entry.deferred_acks.push_back(message.requester);
    return;
  }
  drop_data(entry, actions);
  send(actions, message.requester, {.type = MessageType::kInvalidateAck});
  if (entry.state == State::kReadCopy) {
    entry.state = State::kInvCopy;
    progress(entry, place, actions);
  }
}

void receive_ack(Entry& entry, const Place& place, Actions& actions) {
  if (--entry.acks_missing != 0) return;
  if (entry.state == State::kWaitAckInv || entry.state == State::kWaitAckWrite) {
    entry.state = State::kWriteOwner;
  } else if (entry.state == State::kWaitObjRmAck) {
    finish_removal(entry, actions);
  } else {
    return;
  }
  progress(entry, place, actions);
}

void receive_give_answer(Entry& entry, const Place& place, const Message& message,
                         Actions& actions) {
  check(entry.state == State::kWaitChgOwnAck, "only who gives is answered");
  const NodeId target = std::exchange(entry.gift_to, kNoNode);
  if (message.type == MessageType::kGiveRefused) {
    entry.state = entry.copyset.empty() ? State::kWriteOwner : State::kReadOwner;
    return progress(entry, place, actions);
  }
  send(actions, target,
       {.type = MessageType::kGift,
        .requester = target,
        .version = entry.version,
        .exists = true,
        .with_data = true,
        .promise = message.promise,
        .copyset = entry.copyset});
  // What came here before the manager heard of the gift is asked again. (It must not follow the
  // gift: the new owner may have passed the object on by then.)
  for (Message& request : entry.requests) {
    request.directed = false;
    send(actions, place.manager, std::move(request));
  }
  entry.requests.clear();
  entry.copyset.clear();
  entry.state = State::kInvCopy;
  drop_data(entry, actions);
  progress(entry, place, actions);
}

void receive_request(Entry& entry, const Place& place, const Message& message, Actions& actions) {
  // Our own request comes back when ownership had been promised to us meanwhile (a gift): it is, or
  // will be, here.
  if (message.requester == place.self && message.type == MessageType::kReadRequest) {
    entry.read_outstanding = false;
    if (entry.state == State::kInvCopy) progress(entry, place, actions);
    return;
  }
  if (message.requester == place.self && message.type == MessageType::kWriteRequest) {
    entry.write_outstanding = false;
    entry.promise = std::max(entry.promise, message.promise);
    return;
  }
  entry.requests.push_back(message);
  progress(entry, place, actions);
}

}  // namespace

std::string_view name_of(State state) {
  static constexpr std::array<std::string_view, kStateCount> kNames = {
      "INV_COPY",      "READ_COPY",      "INV_OWNER",       "READ_OWNER",
      "WRITE_OWNER",   "WAIT_ACK_INV",   "WAIT_ACK_WRITE",  "WAIT_CHG_OWN_ACK",
      "WAIT_OBJ_READ", "WAIT_OBJ_WRITE", "WAIT_OBJ_RM_ACK", "INV_FILLING"};
  return kNames[static_cast<size_t>(state)];
}

std::string_view name_of(MessageType type) {
  static constexpr std::array<std::string_view, kMessageTypeCount> kNames = {
      "READ_REQUEST", "WRITE_REQUEST", "REMOVE_REQUEST", "COPY",
      "OWNERSHIP",    "INVALIDATE",    "INVALIDATE_ACK", "GIVE_REQUEST",
      "GIVE_GRANTED", "GIVE_REFUSED",  "GIFT",           "REMOVED"};
  return kNames[static_cast<size_t>(type)];
}

void get(Entry& entry, const Place& place, OpId op, bool first_touch, Actions& actions) {
  entry.waiting.push_back({op, OpKind::kGet, first_touch});
  progress(entry, place, actions);
}

void grab(Entry& entry, const Place& place, OpId op, bool first_touch, Actions& actions) {
  entry.waiting.push_back({op, OpKind::kGrab, first_touch});
  progress(entry, place, actions);
}

void prefetch(Entry& entry, const Place& place, Actions& actions) {
  if (!entry.waiting.empty()) return;
  if (entry.state == State::kInvCopy) request_copy(entry, place, actions);
  if (entry.state == State::kInvOwner && !entry.lost && entry.requests.empty())
    start_first_touch(entry, actions);
}

bool try_get(Entry& entry) {
  if (!is_readable(entry) || !entry.waiting.empty()) return false;
  ++entry.readers;
  return true;
}

bool try_grab(Entry& entry) {
  if (entry.state != State::kWriteOwner || is_pinned(entry) || !entry.waiting.empty()) return false;
  entry.writer = true;
  return true;
}

void put(Entry& entry, const Place& place, OpKind kind, Actions& actions) {
  if (kind == OpKind::kGrab) {
    check(entry.writer, "put of a grab that holds the object");
    entry.writer = false;
  } else {
    check(entry.readers > 0, "put of a get that holds the object");
    --entry.readers;
  }
  if (entry.readers == 0 && entry.drop_when_unpinned) {
    drop_data(entry, actions);
    for (NodeId waiter : entry.deferred_acks)
      send(actions, waiter, {.type = MessageType::kInvalidateAck});
    entry.deferred_acks.clear();
    if (entry.state == State::kReadCopy) entry.state = State::kInvCopy;
  }
  progress(entry, place, actions);
}

void remove(Entry& entry, const Place& place, OpId op, Actions& actions) {
  entry.removals.push_back(op);
  send(actions, place.manager, {.type = MessageType::kRemoveRequest, .requester = place.self});
}

void give(Entry& entry, const Place& place, NodeId target, Actions& actions) {
  if (entry.state != State::kReadOwner && entry.state != State::kWriteOwner) return;
  if (is_pinned(entry) || !entry.requests.empty() || !entry.waiting.empty() || target == place.self)
    return;
  entry.state = State::kWaitChgOwnAck;
  entry.gift_to = target;
  send(actions, place.manager,
       {.type = MessageType::kGiveRequest, .requester = target, .promise = entry.promise});
}

bool drop_copy(Entry& entry, Actions& actions) {
  if (entry.state != State::kReadCopy || entry.readers > 0 || entry.write_outstanding ||
      !entry.waiting.empty())
    return false;
  entry.state = State::kInvCopy;
  drop_data(entry, actions);
  return true;
}

void filled(Entry& entry, const Place& place, bool made, Actions& actions) {
  check(entry.state == State::kInvFilling, "only what was asked for is filled");
  entry.state = made ? State::kWriteOwner : State::kInvOwner;
  entry.has_data = made;
  entry.lost = !made;
  progress(entry, place, actions);
}

void receive(Entry& entry, const Place& place, const Message& message, Actions& actions) {
  switch (message.type) {
    case MessageType::kReadRequest:
    case MessageType::kWriteRequest:
    case MessageType::kRemoveRequest:
      return receive_request(entry, place, message, actions);
    case MessageType::kCopy:
      return receive_copy(entry, place, message, actions);
    case MessageType::kOwnership:
      return receive_ownership(entry, place, message, actions);
    case MessageType::kInvalidate:
      return receive_invalidate(entry, place, message, actions);
    case MessageType::kInvalidateAck:
      return receive_ack(entry, place, actions);
    case MessageType::kGiveGranted:
    case MessageType::kGiveRefused:
      return receive_give_answer(entry, place, message, actions);
    case MessageType::kGift:
      return receive_gift(entry, place, message, actions);
    case MessageType::kRemoved:
      check(!entry.removals.empty(), "only who removes is told");
      complete(actions, entry.removals.front(), Outcome::kRemoved);
      entry.removals.erase(entry.removals.begin());
      return;
    case MessageType::kGiveRequest:
      break;
  }
  check(false, "a give request ends at the manager");
}

Entry initial_entry(const Place& place) {
  Entry entry;
  if (place.self == place.manager) entry.state = State::kInvOwner;
  return entry;
}

bool is_initial(const Entry& entry, const Place& place) {
  const bool at_rest = place.self == place.manager
                           ? entry.state == State::kInvOwner && entry.version == 0
                           : entry.state == State::kInvCopy;
  return at_rest && !entry.lost && !is_pinned(entry) && entry.waiting.empty() &&
         entry.requests.empty() && entry.removals.empty() && entry.deferred_acks.empty() &&
         entry.acks_missing == 0 && !entry.read_outstanding && !entry.write_outstanding;
}

}  // namespace krg::kddm
