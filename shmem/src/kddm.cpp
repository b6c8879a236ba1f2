// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/shmem/kddm.h"

#include <fmt/format.h>

#include <cstring>
#include <deque>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kddm_wire.h"
#include "krg/runtime/check.h"
#include "krg/runtime/log.h"
#include "krg/shmem/kddm_protocol.h"

namespace krg {
namespace {

using kddm::Action;
using kddm::Actions;
using kddm::MessageType;

class ZeroLinker : public IoLinker {
 public:
  void first_touch(ObjectId, std::span<std::byte>, std::function<void(Status)> done) override {
    done({});
  }
};

class HeapMemory : public ObjectMemory {
 public:
  explicit HeapMemory(size_t object_bytes) : object_bytes_(object_bytes) {}
  std::span<std::byte> place(ObjectId object) override {
    auto& bytes = objects_[object.value];
    if (!bytes) bytes = std::make_unique<std::byte[]>(object_bytes_);  // zeroed
    return {bytes.get(), object_bytes_};
  }
  void protect(ObjectId) override {}
  void release(ObjectId object) override { objects_.erase(object.value); }

 private:
  const size_t object_bytes_;
  std::unordered_map<uint64_t, std::unique_ptr<std::byte[]>> objects_;
};

bool is_request(MessageType type) {
  return type == MessageType::kReadRequest || type == MessageType::kWriteRequest ||
         type == MessageType::kRemoveRequest || type == MessageType::kGiveRequest;
}

}  // namespace

std::unique_ptr<IoLinker> make_zero_linker() {
  return std::make_unique<ZeroLinker>();
}

std::unique_ptr<ObjectMemory> make_heap_memory(size_t object_bytes) {
  return std::make_unique<HeapMemory>(object_bytes);
}

struct Kddm::Impl {
  struct Object {
    kddm::Entry entry;
    std::span<std::byte> bytes;  // empty: the set's memory holds nothing for it
  };
  struct Operation {
    Granted granted;                // get, grab
    std::function<void()> removed;  // remove
  };
  struct Set {
    SetId id;
    KddmSetOptions options;
    std::unordered_map<uint64_t, Object> objects;
    std::unordered_map<uint64_t, kddm::DirectoryEntry> directory;
    KddmStatistics statistics;
  };
  struct Early {
    NodeId from;
    kddm::Wire wire;
    std::string payload;
  };
  // What a protocol step wants sent and told, once its other actions are carried out: what programs
  // may still see here has gone before anybody else hears of the step.
  struct Outgoing {
    NodeId to;
    kddm::Wire wire;
    std::string payload;
  };
  struct Outcome {
    std::vector<Outgoing> messages;
    std::vector<std::function<void()>> calls;
  };

  Messenger& messenger;
  std::unordered_map<uint64_t, std::unique_ptr<Set>> sets;
  std::unordered_map<uint64_t, std::deque<Early>> early;
  std::unordered_map<kddm::OpId, Operation> operations;
  kddm::OpId next_operation = 1;

  explicit Impl(Messenger& m) : messenger(m) {}

  // Spreads neighbours over the nodes, whatever stride a program uses.
  NodeId manager_of(const Set& set, ObjectId object) const {
    uint64_t mixed = (object.value + set.id.value * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
    mixed ^= mixed >> 33;
    return NodeId{static_cast<uint16_t>(mixed % messenger.node_count())};
  }
  kddm::Place place_of(const Set& set, ObjectId object) const {
    return {messenger.self(), manager_of(set, object)};
  }
  Set& set_of(SetId id) {
    auto found = sets.find(id.value);
    check(found != sets.end(), "a set is open while it is used");
    return *found->second;
  }
  Object& object_of(Set& set, ObjectId object) {
    auto [at, fresh] = set.objects.try_emplace(object.value);
    if (fresh) at->second.entry = kddm::initial_entry(place_of(set, object));
    return at->second;
  }

  // Runs one protocol call on an object and carries out what it says. `data` came with the message,
  // if any.
  template <class Call>
  void step(Set& set, ObjectId object, std::string_view data, Call call) {
    Object& at = object_of(set, object);
    Actions actions;
    call(at.entry, place_of(set, object), actions);
    Outcome outcome;
    for (Action& action : actions) perform(set, object, at, action, data, outcome);
    forget_if_initial(set, object);
    for (Outgoing& message : outcome.messages) send(message);
    for (auto& tell : outcome.calls) tell();
  }

  void forget_if_initial(Set& set, ObjectId object) {
    auto found = set.objects.find(object.value);
    if (found != set.objects.end() &&
        kddm::is_initial(found->second.entry, place_of(set, object)) && found->second.bytes.empty())
      set.objects.erase(found);
  }

  void perform(Set& set, ObjectId object, Object& at, Action& action, std::string_view data,
               Outcome& outcome) {
    switch (action.kind) {
      case Action::Kind::kSend:
        outcome.messages.push_back(encode(set, object, at, action));
        return;
      case Action::Kind::kInstall:
        check(data.size() == set.options.object_bytes, "an object has its set's size");
        at.bytes = set.options.memory->place(object);
        std::memcpy(at.bytes.data(), data.data(), data.size());
        return;
      case Action::Kind::kDropData:
        release(set, object, at);
        return;
      case Action::Kind::kRemoved:
        return;
      case Action::Kind::kFirstTouch:
        outcome.calls.push_back([this, id = set.id, object] { first_touch(id, object); });
        return;
      case Action::Kind::kComplete:
        return complete(set, object, at, action, outcome);
    }
  }

  static void release(Set& set, ObjectId object, Object& at) {
    at.bytes = {};
    set.options.memory->release(object);
  }

  Outgoing encode(Set& set, ObjectId object, const Object& at, const Action& action) {
    Outgoing outgoing{action.to, kddm::encode(set.id, object, action.message),
                      kddm::encode_copyset(action.message)};
    if (action.message.with_data) {
      check(!at.bytes.empty(), "who sends an object has it");
      set.options.memory->protect(object);
      outgoing.payload.append(reinterpret_cast<const char*>(at.bytes.data()), at.bytes.size());
      set.statistics.bytes_sent += at.bytes.size();
    }
    set.statistics.copies_sent += action.message.type == MessageType::kCopy;
    set.statistics.ownerships_sent +=
        action.message.type == MessageType::kOwnership || action.message.type == MessageType::kGift;
    return outgoing;
  }

  void send(const Outgoing& message) {
    Status sent = messenger.send(message.to, message.wire, message.payload);
    if (!sent)
      log_warn("kddm", "set {} object {}: {} to node {}: {}", message.wire.set, message.wire.object,
               kddm::name_of(static_cast<MessageType>(message.wire.type)), message.to.value,
               sent.error().message());
  }

  void first_touch(SetId id, ObjectId object) {
    Set& set = set_of(id);
    ++set.statistics.first_touches;
    Object& at = object_of(set, object);
    at.bytes = set.options.memory->place(object);
    set.options.linker->first_touch(object, at.bytes, [this, id, object](Status made) {
      Set& set = set_of(id);
      if (!made) {
        log_error("kddm", "set {} object {}: first touch: {}", id.value, object.value,
                  made.error().message());
        release(set, object, object_of(set, object));
      }
      step(set, object, {}, [&](kddm::Entry& e, const kddm::Place& p, Actions& a) {
        kddm::filled(e, p, made.has_value(), a);
      });
    });
  }

  void complete(Set& set, ObjectId object, const Object& at, const Action& action,
                Outcome& outcome) {
    auto found = operations.find(action.op);
    check(found != operations.end(), "an operation ends once");
    Operation operation = std::move(found->second);
    operations.erase(found);
    if (operation.removed) {
      outcome.calls.push_back(std::move(operation.removed));
      return;
    }
    Result<std::span<std::byte>> result = errno_error("", ENOENT);
    if (action.outcome == kddm::Outcome::kGranted) {
      result = at.bytes;
    } else {
      result = errno_error(fmt::format("object {} of set {}", object.value, set.id.value),
                           action.outcome == kddm::Outcome::kLost ? EOWNERDEAD : ENOENT);
    }
    outcome.calls.push_back(
        [granted = std::move(operation.granted), result = std::move(result)] { granted(result); });
  }

  void receive(NodeId from, const kddm::Wire& wire, std::string_view payload) {
    auto found = sets.find(wire.set);
    if (found == sets.end()) {
      auto& queue = early[wire.set];
      check(queue.size() < kMaxEarlyMessages, "a set is opened on every node before it is used");
      queue.push_back({from, wire, std::string(payload)});
      return;
    }
    auto decoded = kddm::decode(wire, payload);
    if (!decoded) {
      log_error("kddm", "from node {}: {}", from.value, decoded.error().message());
      return;
    }
    Set& set = *found->second;
    const ObjectId object{wire.object};
    const kddm::Message& message = decoded->message;
    if (is_request(message.type) && !message.directed) return direct(set, object, from, message);
    set.statistics.invalidations_received += message.type == MessageType::kInvalidate;
    step(set, object, decoded->data, [&](kddm::Entry& e, const kddm::Place& p, Actions& a) {
      kddm::receive(e, p, message, a);
    });
  }

  void direct(Set& set, ObjectId object, NodeId from, const kddm::Message& message) {
    auto [at, fresh] =
        set.directory.try_emplace(object.value, kddm::DirectoryEntry{messenger.self()});
    Actions actions;
    kddm::direct(at->second, from, message, actions);
    for (const Action& action : actions) send(encode(set, object, {}, action));
  }

  void start(SetId id, ObjectId object, Touch touch, kddm::OpKind kind, Granted granted) {
    Set& set = set_of(id);
    const kddm::OpId op = next_operation++;
    operations.emplace(op, Operation{std::move(granted), {}});
    ++(kind == kddm::OpKind::kGet ? set.statistics.gets : set.statistics.grabs);
    step(set, object, {}, [&](kddm::Entry& e, const kddm::Place& p, Actions& a) {
      if (kind == kddm::OpKind::kGet) {
        kddm::get(e, p, op, touch == Touch::kFirstTouch, a);
      } else {
        kddm::grab(e, p, op, touch == Touch::kFirstTouch, a);
      }
      set.statistics.local_hits += a.size() == 1 && a.front().kind == Action::Kind::kComplete;
    });
  }
};

Kddm::Kddm(Messenger& messenger) : impl_(std::make_unique<Impl>(messenger)) {
  messenger.on<kddm::Wire>(
      [impl = impl_.get()](NodeId from, const kddm::Wire& wire, std::string_view payload) {
        impl->receive(from, wire, payload);
      });
}
Kddm::~Kddm() = default;

Status Kddm::open_set(SetId set, KddmSetOptions options) {
  if (options.object_bytes < kMinObjectBytes || options.object_bytes > kMaxObjectBytes)
    return errno_error(fmt::format("set {}: objects of {} bytes (allowed: {} to {})", set.value,
                                   options.object_bytes, kMinObjectBytes, kMaxObjectBytes),
                       EINVAL);
  if (!options.linker) options.linker = make_zero_linker();
  if (!options.memory) options.memory = make_heap_memory(options.object_bytes);
  auto opened = std::make_unique<Impl::Set>();
  opened->id = set;
  opened->options = std::move(options);
  if (!impl_->sets.emplace(set.value, std::move(opened)).second)
    return errno_error(fmt::format("set {}", set.value), EEXIST);
  auto waiting = impl_->early.extract(set.value);
  if (waiting.empty()) return {};
  for (const Impl::Early& message : waiting.mapped())
    impl_->receive(message.from, message.wire, message.payload);
  return {};
}

void Kddm::close_set(SetId set) {
  impl_->sets.erase(set.value);
}

void Kddm::get(SetId set, ObjectId object, Touch touch, Granted granted) {
  impl_->start(set, object, touch, kddm::OpKind::kGet, std::move(granted));
}

void Kddm::grab(SetId set, ObjectId object, Touch touch, Granted granted) {
  impl_->start(set, object, touch, kddm::OpKind::kGrab, std::move(granted));
}

void Kddm::put(SetId id, ObjectId object) {
  Impl::Set& set = impl_->set_of(id);
  impl_->step(set, object, {}, [](kddm::Entry& e, const kddm::Place& p, Actions& a) {
    kddm::put(e, p, e.writer ? kddm::OpKind::kGrab : kddm::OpKind::kGet, a);
  });
}

void Kddm::remove(SetId id, ObjectId object, std::function<void()> done) {
  const kddm::OpId op = impl_->next_operation++;
  impl_->operations.emplace(op, Impl::Operation{{}, std::move(done)});
  impl_->step(impl_->set_of(id), object, {},
              [&](kddm::Entry& e, const kddm::Place& p, Actions& a) { kddm::remove(e, p, op, a); });
}

void Kddm::flush(SetId id, ObjectId object, NodeId target) {
  impl_->step(impl_->set_of(id), object, {}, [&](kddm::Entry& e, const kddm::Place& p, Actions& a) {
    if (!kddm::drop_copy(e, a)) kddm::give(e, p, target, a);
  });
}

std::span<const std::byte> Kddm::find(SetId set, ObjectId object) const {
  auto& objects = impl_->set_of(set).objects;
  auto found = objects.find(object.value);
  if (found == objects.end() || !found->second.entry.has_data ||
      found->second.entry.drop_when_unpinned)
    return {};
  return found->second.bytes;
}

KddmStatistics Kddm::statistics(SetId id) const {
  Impl::Set& set = impl_->set_of(id);
  KddmStatistics statistics = set.statistics;
  for (const auto& [number, object] : set.objects) statistics.objects_here += object.entry.has_data;
  return statistics;
}

}  // namespace krg
