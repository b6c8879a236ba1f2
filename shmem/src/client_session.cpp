// SPDX-License-Identifier: GPL-2.0-or-later
#include "client_session.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "krg/runtime/log.h"
#include "krg/shmem/client.h"
#include "krg/shmem/kddm_service.h"

namespace krg {
namespace {

using client_wire::Op;

constexpr unsigned kPacketsAtOnce = 64;  // from one program before others have their turn

Error destroyed(uint64_t set) {
  return errno_error(fmt::format("set {:x} was destroyed", set), EIDRM);
}

Kddm::Touch touch_of(const client_wire::ClientRequest& request) {
  return request.flag ? Kddm::Touch::kFirstTouch : Kddm::Touch::kNoFirstTouch;
}

}  // namespace

ClientSession::ClientSession(const Parts& parts, UniqueFd socket, std::unique_ptr<PinArena> arena)
    : parts_(parts), socket_(std::move(socket)), arena_(std::move(arena)) {}

ClientSession::~ClientSession() {
  for (auto& [id, pin] : pins_) release(pin, false);
}

Status ClientSession::start(std::function<void()> ended) {
  ended_ = std::move(ended);
  auto watch = parts_.messenger.loop().watch(socket_.get(), EPOLLIN,
                                             [this](uint32_t events) { receive(events); });
  if (!watch) return watch.error();
  watch_ = std::move(*watch);
  return {};
}

void ClientSession::receive(uint32_t events) {
  const auto alive = shared_from_this();  // end() may drop the owner's
  if (events & EPOLLOUT) send_waiting();
  for (unsigned i = 0; i < kPacketsAtOnce && watch_; ++i)
    if (!receive_one()) break;
  pin_neighbours();
}

// Returns whether there may be more.
bool ClientSession::receive_one() {
  std::array<char, client_wire::kMaxClientPacket> packet;
  ssize_t got;
  do got = recv(socket_.get(), packet.data(), packet.size(), MSG_DONTWAIT);
  while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
  Request request;
  const auto bytes = static_cast<size_t>(got);
  if (got <= 0 || bytes < sizeof request) {
    end();
    return false;
  }
  std::memcpy(&request, packet.data(), sizeof request);
  if (request.version != client_wire::kVersion) {
    log_warn("kddm", "a client of another release");
    end();
    return false;
  }
  dispatch(request, {packet.data() + sizeof request, bytes - sizeof request});
  return true;
}

void ClientSession::dispatch(const Request& request, std::string_view payload) {
  const SetId set{request.set};
  if (request.op != Op::kGet && request.op != Op::kGrab) pin_neighbours();
  switch (request.op) {
    case Op::kPut:
      return put(request);
    case Op::kSync:
      return answer(request, {});
    case Op::kName:
      return name(request, payload);
    case Op::kJoinBarrier:
      return join_barrier(request, payload);
    case Op::kWaitBarrier:
      return wait_at_barrier(request);
    case Op::kLeaveBarrier:
      return leave_barrier(request);
    default:
      break;
  }
  if (!parts_.names.find(set) || parts_.uses->is_stopping(set))
    return answer(request, destroyed(request.set));
  switch (request.op) {
    case Op::kGet:
    case Op::kGrab:
      return add_neighbour(request);
    case Op::kGetRange:
    case Op::kGrabRange:
      return take_range(request);
    case Op::kTryGet:
      return try_pin(request, false);
    case Op::kTryGrab:
      return try_pin(request, true);
    case Op::kSet:
      return this->set(request, payload);
    case Op::kRemove:
      return remove(request);
    case Op::kFlush:
      return flush(request);
    case Op::kStatistics:
      return statistics(request);
    default:
      return answer(request, errno_error("operation", ENOSYS));
  }
}

void ClientSession::name(const Request& request, std::string_view payload) {
  if (request.flag > static_cast<uint8_t>(SetNames::Verb::kDestroy))
    return answer(request, errno_error("operation", ENOSYS));
  parts_.names.ask(
      static_cast<SetNames::Verb>(request.flag), payload, request.object,
      [weak = weak_from_this(), request](Result<NamedSet> named) {
        auto self = weak.lock();
        if (!self) return;
        if (!named) return self->answer(request, named.error());
        self->reply(
            {.call = request.call, .set = named->id.value, .object_bytes = named->object_bytes});
      });
}

void ClientSession::add_neighbour(const Request& request) {
  if (!neighbours_.empty()) {
    const Request& last = neighbours_.back();
    if (last.op != request.op || last.flag != request.flag || last.set != request.set ||
        last.object + 1 != request.object)
      pin_neighbours();
  }
  neighbours_.push_back(request);
}

void ClientSession::pin_neighbours() {
  if (neighbours_.empty()) return;
  const auto range = std::make_shared<const std::vector<Request>>(std::exchange(neighbours_, {}));
  const Request& first = range->front();
  const SetId set{first.set};
  const auto touch = touch_of(first);
  for (size_t i = 0; i < range->size(); ++i) parts_.uses->begin(set);
  auto done = [weak = weak_from_this(), parts = parts_, range](ObjectId object,
                                                               const Granted& bytes) {
    pinned(weak, parts, (*range)[object.value - range->front().object], bytes);
  };
  if (first.op == Op::kGrab) {
    parts_.kddm.grab_range(set, {first.object}, range->size(), touch, done);
  } else {
    parts_.kddm.get_range(set, {first.object}, range->size(), touch, done);
  }
}

void ClientSession::pinned(const std::weak_ptr<ClientSession>& session, const Parts& parts,
                           const Request& request, const Granted& bytes) {
  const SetId set{request.set};
  auto self = session.lock();
  if (self && self->watch_ && !(bytes && parts.uses->is_stopping(set)))
    return self->granted(request, request.op == Op::kGrab, bytes);
  // The program has gone, or the set is going.
  if (self) self->answer(request, destroyed(request.set));
  if (!bytes) return parts.uses->end(set);
  put_soon(parts.messenger.loop(), parts.kddm, parts.uses, set, {request.object});
}

void ClientSession::take_range(const Request& request) {
  const SetId set{request.set};
  const uint64_t count = request.pin;
  const size_t each = parts_.names.find(set)->object_bytes;
  if (count == 0 || count > kMaxRangeObjects || count * each > kMaxRangeBytes ||
      request.object + (count - 1) < request.object)
    return answer(request, errno_error(fmt::format("a range of {} objects", count), EINVAL));
  // As many small objects take in one range what they take one by one.
  const auto place = arena_->take(std::max(count * each, count * kSmallestPlace));
  if (!place) return answer(request, errno_error("memory for one more pin", ENOBUFS));
  const RangePin::Objects objects{
      set, {request.object}, count, request.op == Op::kGrabRange, touch_of(request)};
  const auto range = std::make_shared<RangePin>(parts_.messenger.loop(), parts_.kddm, parts_.uses,
                                                objects, place->bytes.first(count * each));
  const uint64_t id = next_pin_++;
  pins_.emplace(id, Pin{set, {request.object}, objects.writing, {}, *place, range});
  range->take([weak = weak_from_this(), request, id](const Status& taken) {
    if (auto self = weak.lock()) self->range_taken(request, id, taken);
  });
}

void ClientSession::range_taken(const Request& request, uint64_t id, const Status& taken) {
  auto pin = pins_.find(id);
  if (pin == pins_.end()) return;  // the program has gone
  if (taken) return reply({.call = request.call, .pin = id, .offset = pin->second.place.offset});
  arena_->give_back(pin->second.place);
  pins_.erase(pin);
  answer(request, taken);
}

void ClientSession::try_pin(const Request& request, bool writing) {
  const SetId set{request.set};
  const ObjectId object{request.object};
  parts_.uses->begin(set);
  granted(request, writing,
          writing ? parts_.kddm.try_grab(set, object) : parts_.kddm.try_get(set, object));
}

// A use of the set has begun; it lasts as long as the pin.
void ClientSession::granted(const Request& request, bool writing, const Granted& bytes) {
  const SetId set{request.set};
  const auto place = bytes ? arena_->take(bytes.value().size()) : std::nullopt;
  if (!place) {
    answer(request,
           bytes ? Status(errno_error("memory for one more pin", ENOBUFS)) : Status(bytes.error()));
    if (!bytes) return parts_.uses->end(set);
    return put_soon(parts_.messenger.loop(), parts_.kddm, parts_.uses, set, {request.object});
  }
  std::memcpy(place->bytes.data(), bytes.value().data(), place->bytes.size());
  const uint64_t id = next_pin_++;
  pins_.emplace(id, Pin{set, {request.object}, writing, bytes.value(), *place, nullptr});
  reply({.call = request.call, .pin = id, .offset = place->offset});
}

void ClientSession::put(const Request& request) {
  // A put may grant what this program waits for: it must find pins_ in order.
  auto pin = pins_.extract(request.pin);
  if (pin.empty()) return log_debug("kddm", "a client puts what it does not hold");
  release(pin.mapped(), request.flag != 0);
  arena_->give_back(pin.mapped().place);
}

void ClientSession::release(Pin& pin, bool store) {
  if (pin.range) return pin.range->release(store);
  if (pin.bytes.empty()) return;
  if (pin.writing && store) std::memcpy(pin.bytes.data(), pin.place.bytes.data(), pin.bytes.size());
  pin.bytes = {};
  parts_.kddm.put(pin.set, pin.object);
  parts_.uses->end(pin.set);
}

void ClientSession::release_pins_of(SetId set) {
  std::vector<std::shared_ptr<RangePin>> unfinished;  // which go from pins_ when they are told
  for (auto& [id, pin] : pins_) {
    if (pin.set != set) continue;
    if (pin.range && !pin.range->is_taken()) {
      unfinished.push_back(pin.range);
    } else {
      release(pin, false);
    }
  }
  for (const auto& range : unfinished) range->fail(destroyed(set.value));
}

void ClientSession::set(const Request& request, std::string_view payload) {
  const SetId set{request.set};
  if (payload.size() != parts_.names.find(set)->object_bytes)
    return answer(request, errno_error("set() of another size than the set's objects", EINVAL));
  parts_.uses->begin(set);
  parts_.kddm.grab(set, {request.object}, Kddm::Touch::kFirstTouch,
                   [weak = weak_from_this(), parts = parts_, request,
                    content = std::string(payload)](const Granted& bytes) {
                     const SetId set{request.set};
                     auto answer = [weak, request](const Status& status) {
                       if (auto self = weak.lock()) self->answer(request, status);
                     };
                     if (!bytes) {
                       answer(bytes.error());
                       return parts.uses->end(set);
                     }
                     std::memcpy(bytes.value().data(), content.data(), content.size());
                     put_soon(parts.messenger.loop(), parts.kddm, parts.uses, set, {request.object},
                              [answer] { answer({}); });
                   });
}

void ClientSession::remove(const Request& request) {
  parts_.uses->begin({request.set});
  parts_.kddm.remove({request.set}, {request.object},
                     [weak = weak_from_this(), uses = parts_.uses, request] {
                       if (auto self = weak.lock()) self->answer(request, {});
                       uses->end({request.set});
                     });
}

// Out of this node's memory: to the next living node, if this one owns the object.
void ClientSession::flush(const Request& request) {
  const Messenger& messenger = parts_.messenger;
  for (unsigned i = 1; i < messenger.node_count(); ++i) {
    const NodeId target{
        static_cast<uint16_t>((messenger.self().value + i) % messenger.node_count())};
    if (messenger.is_failed(target)) continue;
    parts_.kddm.flush({request.set}, {request.object}, target);
    return answer(request, {});
  }
  answer(request, errno_error("there is no other node", ENODEV));
}

void ClientSession::statistics(const Request& request) {
  const KddmStatistics counted = parts_.kddm.statistics({request.set});
  reply({.call = request.call}, {reinterpret_cast<const char*>(&counted), sizeof counted});
}

void ClientSession::join_barrier(const Request& request, std::string_view name) {
  auto member = std::make_shared<uint64_t>();
  *member = parts_.barriers.join(name, request.object,
                                 [weak = weak_from_this(), request, member](const Status& joined) {
                                   auto self = weak.lock();
                                   if (!self) return;
                                   if (joined)
                                     return self->reply({.call = request.call, .pin = *member});
                                   self->memberships_.erase(*member);
                                   self->answer(request, joined);
                                 });
  memberships_.insert(*member);
}

void ClientSession::wait_at_barrier(const Request& request) {
  if (!memberships_.contains(request.pin))
    return answer(request, errno_error("a barrier that was not joined", EINVAL));
  parts_.barriers.wait(request.pin, [weak = weak_from_this(), request](const Status& over) {
    if (auto self = weak.lock()) self->answer(request, over);
  });
}

void ClientSession::leave_barrier(const Request& request) {
  if (memberships_.erase(request.pin) > 0) parts_.barriers.leave(request.pin);
}

void ClientSession::answer(const Request& request, const Status& status) {
  if (status) return reply({.call = request.call});
  const int number = status.error().errno_or(EIO);
  reply({.error = number ? number : EIO, .call = request.call}, status.error().context);
}

void ClientSession::reply(const Reply& reply, std::string_view payload) {
  std::string packet(reinterpret_cast<const char*>(&reply), sizeof reply);
  packet += payload.substr(0, client_wire::kMaxClientPacket - sizeof reply);
  replies_.push_back(std::move(packet));
  if (!lacks_room_) return send_waiting();
  if (replies_.size() <= kMaxClientReplies) return;
  log_warn("kddm", "a client does not read its replies");
  // Not from inside a callback that still uses this.
  parts_.messenger.loop().post([weak = weak_from_this()] {
    if (auto self = weak.lock()) self->end();
  });
}

void ClientSession::send_waiting() {
  while (!replies_.empty()) {
    const std::string& packet = replies_.front();
    if (send(socket_.get(), packet.data(), packet.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) break;
      return replies_.clear();  // it has gone; receive() sees it
    }
    replies_.pop_front();
  }
  if (std::exchange(lacks_room_, !replies_.empty()) != lacks_room_ && watch_)
    watch_.set_events(lacks_room_ ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void ClientSession::end() {
  watch_.reset();  // from here on nothing is granted to it
  neighbours_.clear();
  auto pins = std::exchange(pins_, {});
  for (auto& [id, pin] : pins) release(pin, false);
  for (const uint64_t member : std::exchange(memberships_, {})) parts_.barriers.leave(member);
  if (auto ended = std::exchange(ended_, nullptr)) ended();
}

}  // namespace krg
