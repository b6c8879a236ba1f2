// SPDX-License-Identifier: GPL-2.0-or-later
#include "kddm_server.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "krg/runtime/check.h"
#include "krg/runtime/log.h"

namespace krg::kddm {
namespace {

bool is_request(MessageType type) {
  return type == MessageType::kReadRequest || type == MessageType::kWriteRequest ||
         type == MessageType::kRemoveRequest || type == MessageType::kGiveRequest;
}

Error not_open(SetId set) {
  return errno_error(fmt::format("set {} is not open here", set.value), EBADF);
}

}  // namespace

Server::Server(Messenger& m)
    : messenger(m),
      outbox(
          m, [this] { settle(); },
          [this](const std::vector<Outbox::Own>& messages) { receive_own(messages); }),
      ring_(m.node_count()),
      muted_(m.node_count()) {}

// Every handler holds the server weakly: the Messenger keeps its handlers for life.
void Server::start() {
  auto weak = weak_from_this();
  messenger.on<Wire>([weak](NodeId from, const Wire& wire, std::string_view payload) {
    if (auto self = weak.lock()) self->receive(from, wire, payload);
  });
  messenger.on<Batch>([weak](NodeId from, const Batch& batch, std::string_view payload) {
    auto self = weak.lock();
    if (!self) return;
    const Outbox::Scope scope(self->outbox);  // the answers go together, too
    const Status read = for_each_in_batch(
        batch, payload,
        [&](const Wire& wire, std::string_view data) { self->receive(from, wire, data); });
    if (!read) log_error("kddm", "from node {}: {}", from.value, read.error().message());
  });
}

Status Server::open_set(SetId id, KddmSetOptions options) {
  auto opened = std::make_unique<Set>();
  opened->id = id;
  opened->options = std::move(options);
  opened->scarce = dynamic_cast<ScarceMemory*>(opened->options.memory.get());
  auto [at, fresh] = sets_.emplace(id.value, std::move(opened));
  if (!fresh) return errno_error(fmt::format("set {}", id.value), EEXIST);
  if (auto decided = late_decisions.extract(id.value))
    for (const LateDecision& late : decided.mapped())
      apply(*at->second, late.object, late.decision);
  auto waiting = early_.extract(id.value);
  if (waiting.empty()) return {};
  const Outbox::Scope scope(outbox);
  for (const Held& message : waiting.mapped()) receive(message.from, message.wire, message.payload);
  return {};
}

void Server::close_set(SetId id) {
  existence_.erase(id.value);
  late_decisions.erase(id.value);
  install_arrived();
  outbox.own();
  auto closing = sets_.extract(id.value);
  if (closing.empty()) return;
  for (auto& [number, object] : closing.mapped()->objects) {
    if (object.bytes.empty()) continue;
    bytes_here_ -= object.bytes.size();
    by_use_.erase(object.use);
  }
  std::vector<Operation> cancelled;
  for (auto i = operations_.begin(); i != operations_.end();) {
    auto next = std::next(i);
    if (i->second.set == id) cancelled.push_back(std::move(operations_.extract(i).mapped()));
    i = next;
  }
  const Error reason = errno_error(fmt::format("set {} was closed", id.value), ECANCELED);
  for (Operation& operation : cancelled)
    operation.removed ? operation.removed() : operation.granted(reason);
}

void Server::ignore_set(SetId id) {
  ignored_.insert(id.value);
  early_.erase(id.value);
}

Set* Server::find_set(SetId id) {
  auto found = sets_.find(id.value);
  return found == sets_.end() ? nullptr : found->second.get();
}

NodeId Server::tail_of(const Set& set, ObjectId object) const {
  auto found = set.directory.find(object.value);
  return found == set.directory.end() ? messenger.self() : found->second.tail;
}

// By its hash, unless the options say otherwise: so that neighbours are spread over the nodes,
// whatever stride a program uses.
uint16_t Server::slot_of(const Set& set, ObjectId object) const {
  const unsigned nodes = ring_.size();
  if (set.options.home != kNoNode) return static_cast<uint16_t>(set.options.home.value % nodes);
  const uint64_t block = object.value / set.options.objects_per_manager;
  if (set.options.blocks_in_order) return static_cast<uint16_t>(block % nodes);
  uint64_t mixed = (block + set.id.value * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
  mixed ^= mixed >> 33;
  return static_cast<uint16_t>(mixed % nodes);
}

Place Server::place_of(const Set& set, ObjectId object) const {
  return {messenger.self(), ring_.manager(slot_of(set, object))};
}

Object& Server::object_of(Set& set, ObjectId object) {
  auto [at, fresh] = set.objects.try_emplace(object.value);
  if (fresh) at->second.entry = initial_entry(place_of(set, object));
  return at->second;
}

void Server::forget_if_initial(Set& set, ObjectId object) {
  auto found = set.objects.find(object.value);
  if (found != set.objects.end() && is_initial(found->second.entry, place_of(set, object)) &&
      found->second.bytes.empty())
    set.objects.erase(found);
}

// What a step sends and tells comes after its other actions: what programs may still see here has
// gone before anybody else hears of the step.
void Server::carry_out(Set& set, ObjectId object, Object& at, Actions& actions,
                       std::string_view data) {
  Calls calls;
  {
    const Outbox::Scope scope(outbox);
    for (const Action& action : actions) perform(set, object, at, action, data, calls);
    forget_if_initial(set, object);
    actions.clear();
    spare_actions_ = std::move(actions);
  }
  if (!calls.empty()) install_arrived();
  for (auto& call : calls) {
    if (mode_ == Mode::kHalted) {
      held_calls_.push_back(std::move(call));
    } else {
      call();
    }
  }
}

void Server::perform(Set& set, ObjectId object, Object& at, const Action& action,
                     std::string_view data, Calls& calls) {
  const bool brings = action.kind == Action::Kind::kInstall;
  if (!brings && (action.kind != Action::Kind::kSend || action.message.with_data))
    install_arrived();
  switch (action.kind) {
    case Action::Kind::kSend:
      return send(set, object, at, action);
    case Action::Kind::kInstall:
      return arrive(set, object, at, data);
    case Action::Kind::kDropData:
      return release(set, object, at);
    case Action::Kind::kRemoved:
      calls.push_back([linker = set.options.linker, object] { linker->removed(object); });
      return tell_existence(set, object, at.entry.version, false);
    case Action::Kind::kFirstTouch:
      calls.push_back([this, id = set.id, object] { first_touch(id, object); });
      return;
    case Action::Kind::kComplete:
      return complete(set, object, at, action, calls);
  }
}

void Server::arrive(Set& set, ObjectId object, Object& at, std::string_view data) {
  check(data.size() == set.options.object_bytes, "an object has its set's size");
  place(set, object, at);
  set.statistics.refetches += set.evicted.erase(object.value);
  const bool readable = at.entry.state == State::kReadCopy;
  const bool goes_on = arrived_.memory == set.options.memory && arrived_.readable == readable &&
                       arrived_.first.value + arrived_.count == object.value &&
                       arrived_.bytes.data() + arrived_.bytes.size() == data.data();
  if (!goes_on) {
    install_arrived();
    arrived_ = {set.options.memory, object, 0, readable, data.substr(0, 0)};
  }
  ++arrived_.count;
  arrived_.bytes = {arrived_.bytes.data(), arrived_.bytes.size() + data.size()};
}

void Server::install_arrived() {
  if (arrived_.count == 0) return;
  const Arrived now = std::exchange(arrived_, {});
  now.memory->install(now.first, now.count, std::as_bytes(std::span(now.bytes)));
  if (now.readable) now.memory->readable(now.first, now.count);
}

void Server::settle() {
  for (const auto& memory : std::exchange(unsettled_, {})) memory->settle();
}

void Server::place(Set& set, ObjectId object, Object& at) {
  const bool fresh = at.bytes.empty();
  at.bytes = set.options.memory->place(object);
  if (!fresh) return;
  at.use = by_use_.insert(by_use_.end(), {set.id, object});
  bytes_here_ += at.bytes.size();
  if (on_growth) on_growth();
}

void Server::release(Set& set, ObjectId object, Object& at) {
  if (!at.bytes.empty()) {
    bytes_here_ -= at.bytes.size();
    by_use_.erase(at.use);
  }
  at.bytes = {};
  outbox.own();
  set.options.memory->release(object);
  if (unsettled_.empty() || unsettled_.back() != set.options.memory)
    unsettled_.push_back(set.options.memory);
  if (on_release) on_release({set.id, object});
}

void Server::send(Set& set, ObjectId object, const Object& at, const Action& action) {
  const Message& message = action.message;
  set.statistics.copies_sent += message.type == MessageType::kCopy;
  set.statistics.ownerships_sent +=
      message.type == MessageType::kOwnership || message.type == MessageType::kGift;
  std::string payload = encode_copyset(message);
  if (message.with_data) {
    check(!at.bytes.empty(), "who sends an object has it");
    set.options.memory->protect(object);
    set.statistics.bytes_sent += at.bytes.size();
    // Who sends a copy keeps the object; else it goes in the same step.
    if (message.type == MessageType::kCopy)
      return outbox.add_borrowed(action.to, encode(set.id, object, message), at.bytes);
    payload.append(reinterpret_cast<const char*>(at.bytes.data()), at.bytes.size());
  }
  outbox.add(action.to, encode(set.id, object, message), std::move(payload));
}

void Server::first_touch(SetId id, ObjectId object) {
  Set* set = find_set(id);
  if (!set) return;
  ++set->statistics.first_touches;
  Object& at = object_of(*set, object);
  place(*set, object, at);
  auto filled_here = [weak = weak_from_this(), memory = set->options.memory, id,
                      object](Status made) {
    if (auto self = weak.lock()) self->filled(id, object, made);
  };
  set->options.linker->first_touch(object, at.bytes, std::move(filled_here));
}

void Server::filled(SetId id, ObjectId object, const Status& made) {
  if (mode_ != Mode::kRunning && put_off([this, id, object, made] { filled(id, object, made); }))
    return;
  Set* set = find_set(id);
  if (!set) return;
  const Outbox::Scope scope(outbox);
  Object& at = object_of(*set, object);
  if (at.entry.state != State::kInvFilling) return;  // of a set of this id that was closed
  if (!made) {
    log_error("kddm", "set {} object {}: first touch: {}", id.value, object.value,
              made.error().message());
    release(*set, object, at);
  }
  tell_existence(*set, object, at.entry.version, true);
  step(*set, object, {},
       [&](Entry& e, const Place& p, Actions& a) { kddm::filled(e, p, made.has_value(), a); });
  set = find_set(id);
  if (!set) return;
  auto found = set->objects.find(object.value);
  if (found != set->objects.end() && found->second.entry.state == State::kWriteOwner &&
      !found->second.entry.writer)
    set->options.memory->readable(object, 1);
}

void Server::complete(Set& set, ObjectId object, Object& at, const Action& action, Calls& calls) {
  auto found = operations_.find(action.op);
  check(found != operations_.end(), "an operation ends once");
  Operation operation = std::move(found->second);
  operations_.erase(found);
  if (operation.removed) {
    calls.push_back(std::move(operation.removed));
    return;
  }
  if (action.outcome == Outcome::kGranted) used(at);
  Result<std::span<std::byte>> result = at.bytes;
  if (action.outcome != Outcome::kGranted)
    result = errno_error(fmt::format("object {} of set {}", object.value, set.id.value),
                         action.outcome == Outcome::kLost ? EOWNERDEAD : ENOENT);
  calls.push_back(
      [granted = std::move(operation.granted), result = std::move(result)] { granted(result); });
}

void Server::receive(NodeId from, const Wire& wire, std::string_view payload) {
  if (!waiting_.empty() || !try_receive(from, wire, payload)) wait_for_turn(from, wire, payload);
}

// Returns false, and does nothing, where there is no memory for what has come.
bool Server::try_receive(NodeId from, const Wire& wire, std::string_view payload) {
  if (is_muted(from)) return true;
  if (mode_ == Mode::kHalted) {
    held_messages_.push_back({from, wire, std::string(payload)});
    return true;
  }
  if (wire.type == kNoteType) {
    ExistenceNote one = decode_note(wire);
    for (uint32_t i = 0; i < wire.run; ++i, ++one.object.value) note(one);
    return true;
  }
  auto found = sets_.find(wire.set);
  if (found == sets_.end()) {
    if (!ignored_.contains(wire.set)) keep_early(from, wire, payload);
    return true;
  }
  auto decoded = decode(wire, payload);
  if (!decoded) {
    log_error("kddm", "from node {}: {}", from.value, decoded.error().message());
    return true;
  }
  Set* set = found->second.get();
  if (set->scarce && !decoded->data.empty() &&
      !set->scarce->make_room(ObjectId{wire.object}, wire.run))
    return false;
  const size_t each = decoded->data.size() / wire.run;
  const Outbox::Scope scope(outbox);
  for (uint32_t i = 0; set && i < wire.run; ++i) {
    receive_one(*set, ObjectId{wire.object + i}, from, decoded->message,
                decoded->data.substr(i * each, each));
    if (i + 1 < wire.run) set = find_set(SetId{wire.set});  // a completion may close it
  }
  install_arrived();
  return true;
}

void Server::keep_early(NodeId from, const Wire& wire, std::string_view payload) {
  auto& queue = early_[wire.set];
  if (queue.size() >= kMaxEarlyMessages)
    return log_error("kddm", "set {} is not open here: a message from node {} is dropped", wire.set,
                     from.value);
  queue.push_back({from, wire, std::string(payload)});
}

// As a batch of another node's.
void Server::receive_own(const std::vector<Outbox::Own>& messages) {
  const auto self = shared_from_this();
  const Outbox::Scope scope(outbox);
  for (const Outbox::Own& message : messages)
    receive(messenger.self(), message.wire, message.payload);
}

void Server::receive_one(Set& set, ObjectId object, NodeId from, const Message& message,
                         std::string_view data) {
  if (is_request(message.type) && !message.directed) return direct(set, object, from, message);
  set.statistics.invalidations_received += message.type == MessageType::kInvalidate;
  step(set, object, data,
       [&](Entry& e, const Place& p, Actions& a) { kddm::receive(e, p, message, a); });
}

void Server::direct(Set& set, ObjectId object, NodeId from, const Message& message) {
  if (mode_ != Mode::kRunning) return;  // asked again after the recovery
  auto [at, fresh] = set.directory.try_emplace(object.value, DirectoryEntry{messenger.self()});
  Actions actions;
  kddm::direct(at->second, from, message, actions);
  const Outbox::Scope scope(outbox);
  for (const Action& action : actions) send(set, object, {}, action);
}

void Server::start(SetId id, ObjectId object, Kddm::Touch touch, OpKind kind,
                   Kddm::Granted granted) {
  if (mode_ != Mode::kRunning && put_off([this, id, object, touch, kind, granted] {
        start(id, object, touch, kind, granted);
      }))
    return;
  Set* set = find_set(id);
  if (!set) return granted(not_open(id));
  const OpId op = next_operation_++;
  operations_.emplace(op, Operation{id, std::move(granted), {}});
  ++(kind == OpKind::kGet ? set->statistics.gets : set->statistics.grabs);
  step(*set, object, {}, [&](Entry& e, const Place& p, Actions& a) {
    const bool make = touch == Kddm::Touch::kFirstTouch;
    kind == OpKind::kGet ? get(e, p, op, make, a) : grab(e, p, op, make, a);
    set->statistics.local_hits += a.size() == 1 && a.front().kind == Action::Kind::kComplete;
  });
}

void Server::prefetch(SetId id, ObjectId first, uint64_t count) {
  Set* set = find_set(id);
  if (!set || mode_ != Mode::kRunning) return;
  const Outbox::Scope scope(outbox);
  for (uint64_t i = 0; set && i < count; ++i, set = find_set(id)) {
    ++set->statistics.gets;
    step(*set, ObjectId{first.value + i}, {},
         [](Entry& e, const Place& p, Actions& a) { kddm::prefetch(e, p, a); });
  }
}

void Server::start_range(SetId id, ObjectId first, uint64_t count, Kddm::Touch touch, OpKind kind,
                         const Kddm::GrantedOne& granted) {
  const Outbox::Scope scope(outbox);
  for (uint64_t i = 0; i < count; ++i) {
    const ObjectId object{first.value + i};
    start(id, object, touch, kind,
          [granted, object](Result<std::span<std::byte>> bytes) { granted(object, bytes); });
  }
}

void Server::replace(SetId id, ObjectId object, std::string bytes, std::function<void(Status)> done,
                     bool again) {
  auto write = [weak = weak_from_this(), id, object, bytes = std::move(bytes),
                done = std::move(done), again](const Result<std::span<std::byte>>& old) {
    auto self = weak.lock();
    if (!self) return;
    if (!old && old.error().errno_or(0) == EOWNERDEAD && !again)
      return self->remove(id, object, [weak, id, object, bytes, done] {
        if (auto alive = weak.lock()) alive->replace(id, object, bytes, done, true);
      });
    if (!old) return done(old.error());
    const bool fits = old->size() == bytes.size();
    if (fits) std::memcpy(old->data(), bytes.data(), bytes.size());
    self->put(id, object);
    done(fits ? Status() : Status(errno_error(fmt::format("{} bytes", bytes.size()), EINVAL)));
  };
  start(id, object, Kddm::Touch::kFirstTouch, OpKind::kGrab, std::move(write));
}

Result<std::span<std::byte>> Server::try_pin(SetId id, ObjectId object, OpKind kind) {
  Set* set = find_set(id);
  if (!set) return not_open(id);
  ++(kind == OpKind::kGet ? set->statistics.gets : set->statistics.grabs);
  auto found = set->objects.find(object.value);
  if (mode_ != Mode::kRunning || found == set->objects.end() ||
      !(kind == OpKind::kGet ? try_get(found->second.entry) : try_grab(found->second.entry)))
    return errno_error(fmt::format("object {} of set {}", object.value, id.value), EAGAIN);
  ++set->statistics.local_hits;
  used(found->second);
  return found->second.bytes;
}

void Server::put(SetId id, ObjectId object) {
  if (mode_ != Mode::kRunning && put_off([this, id, object] { put(id, object); })) return;
  Set* set = find_set(id);
  if (!set) return;
  step(*set, object, {}, [](Entry& e, const Place& p, Actions& a) {
    kddm::put(e, p, e.writer ? OpKind::kGrab : OpKind::kGet, a);
  });
}

void Server::remove(SetId id, ObjectId object, std::function<void()> done) {
  if (mode_ != Mode::kRunning && put_off([this, id, object, done] { remove(id, object, done); }))
    return;
  Set* set = find_set(id);
  if (!set) return done();
  const OpId op = next_operation_++;
  operations_.emplace(op, Operation{id, {}, std::move(done)});
  step(*set, object, {}, [&](Entry& e, const Place& p, Actions& a) { kddm::remove(e, p, op, a); });
}

void Server::flush(SetId id, ObjectId object, NodeId target) {
  if (mode_ != Mode::kRunning && put_off([this, id, object, target] { flush(id, object, target); }))
    return;
  Set* set = find_set(id);
  if (!set || ring_.is_dead(target)) return;
  step(*set, object, {}, [&](Entry& e, const Place& p, Actions& a) {
    if (!drop_copy(e, a)) give(e, p, target, a);
  });
}

}  // namespace krg::kddm
