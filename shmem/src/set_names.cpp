// SPDX-License-Identifier: GPL-2.0-or-later
#include "set_names.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <unordered_map>
#include <utility>

namespace krg {
namespace {

using Verb = SetNames::Verb;
using Done = SetNames::Done;

constexpr uint64_t kNamedSets = uint64_t{1} << 63;  // ids from here on; smaller ones are krgd's own
// So many neighbours have one manager: as much as travels in one piece, or not many.
constexpr uint64_t kManagedBytes = 256 << 10, kManagedObjects = 64;
constexpr std::chrono::milliseconds kRetryDelay{20};
constexpr unsigned kMostTries = 500;

// To the node that orders names; the payload is the name, the reply's a NamedSet.
struct NameRequest {
  static constexpr uint16_t kId = 208;
  uint8_t version = 1;
  Verb verb = Verb::kOpen;
  uint8_t reserved[6] = {};
  uint64_t object_bytes = 0;
};
static_assert(sizeof(NameRequest) == 16);

// From it to every node; the payload is the name.
struct NameChange {
  static constexpr uint16_t kId = 209;
  enum class Step : uint8_t { kOpen, kStop, kClose };
  uint8_t version = 1;
  Step step = Step::kOpen;
  uint8_t reserved[6] = {};
  uint64_t id = 0;
  uint64_t object_bytes = 0;
};
static_assert(sizeof(NameChange) == 24);

std::string_view bytes_of(const NamedSet& set) {
  return {reinterpret_cast<const char*>(&set), sizeof set};
}

Status check_request(Verb verb, std::string_view name, uint64_t object_bytes) {
  if (name.empty() || name.size() > kMaxSetNameBytes)
    return errno_error(fmt::format("a set's name has 1 to {} bytes", kMaxSetNameBytes), EINVAL);
  const bool makes = verb == Verb::kCreate || verb == Verb::kOpenOrCreate;
  if (makes && (object_bytes < kMinObjectBytes || object_bytes > kMaxObjectBytes))
    return errno_error(fmt::format("set {}: objects have {} bytes to {} MiB", name, kMinObjectBytes,
                                   kMaxObjectBytes >> 20),
                       EINVAL);
  return {};
}

}  // namespace

struct SetNames::Impl {
  struct Named {
    NamedSet set;
    bool everywhere = false;  // this node has seen to it that every node has it open
  };
  // A request that this node orders.
  struct Ordered {
    Verb verb;
    std::string name;
    uint64_t object_bytes;
    Messenger::Reply reply;
  };
  // One that this node's clients wait for.
  struct Asked {
    Verb verb;
    std::string name;
    uint64_t object_bytes;
    Done done;
    unsigned tries = 0;
    EventLoop::Timer retry;
  };

  Messenger& messenger;
  Kddm& kddm;
  Stop stop;
  std::weak_ptr<Impl> self;
  std::map<std::string, Named, std::less<>> names;
  std::unordered_map<uint64_t, std::string> name_of;
  std::deque<Ordered> ordered;  // the first one is being carried out

  Impl(Messenger& m, Kddm& k, Stop s) : messenger(m), kddm(k), stop(std::move(s)) {}

  NodeId orderer() const {
    for (uint16_t node = 0; node < messenger.node_count(); ++node)
      if (!messenger.is_failed(NodeId{node})) return NodeId{node};
    return messenger.self();
  }

  void ask(std::shared_ptr<Asked> asked) {
    const NameRequest request{.verb = asked->verb, .object_bytes = asked->object_bytes};
    messenger.request(orderer(), request, asked->name,
                      [weak = self, asked](Result<std::string> reply) {
                        if (auto impl = weak.lock()) impl->answered(asked, std::move(reply));
                      });
  }

  void answered(const std::shared_ptr<Asked>& asked, Result<std::string> reply) {
    if (reply) {
      NamedSet set;
      if (reply->size() != sizeof set) return asked->done(errno_error("a set's id", EPROTO));
      std::memcpy(&set, reply->data(), sizeof set);
      return asked->done(set);
    }
    // The orderer died, or another one follows it and does not know yet.
    const int number = reply.error().errno_or(0);
    if ((number != EHOSTDOWN && number != EAGAIN) || ++asked->tries >= kMostTries)
      return asked->done(reply.error());
    asked->retry = messenger.loop().after(kRetryDelay, [weak = self, asked] {
      if (auto impl = weak.lock()) impl->ask(asked);
    });
  }

  void order(const NameRequest& request, std::string_view name, Messenger::Reply reply) {
    if (orderer() != messenger.self()) return reply.fail(EAGAIN, "another node orders names");
    ordered.push_back({request.verb, std::string(name), request.object_bytes, std::move(reply)});
    if (ordered.size() == 1) carry_out();
  }

  void carry_out() {
    Ordered& head = ordered.front();
    auto found = names.find(head.name);
    const bool exists = found != names.end();
    if (head.verb == Verb::kDestroy) {
      // Not another set that has the name by now.
      if (!exists || found->second.set.id.value != head.object_bytes) return fail(EIDRM);
      return destroy(found->second.set);
    }
    if (exists && head.verb == Verb::kCreate) return fail(EEXIST);
    if (!exists && head.verb == Verb::kOpen) return fail(ENOENT);
    if (exists && head.verb == Verb::kOpenOrCreate &&
        found->second.set.object_bytes != head.object_bytes)
      return fail(EINVAL, fmt::format("set {} has objects of {} bytes", head.name,
                                      found->second.set.object_bytes));
    if (exists && found->second.everywhere) return succeed(found->second.set);
    NamedSet set{{}, head.object_bytes};
    if (exists) set = found->second.set;
    if (!exists && getrandom(&set.id.value, sizeof set.id.value, 0) < 0) return fail(errno);
    set.id.value |= kNamedSets;
    tell_all(
        {.step = NameChange::Step::kOpen, .id = set.id.value, .object_bytes = set.object_bytes},
        [this, set, name = head.name](Status told) {
          if (!told) return fail(told.error());
          names[name].everywhere = true;  // told to open it, this node has
          succeed(set);
        });
  }

  void destroy(NamedSet set) {
    NameChange change{.step = NameChange::Step::kStop, .id = set.id.value, .object_bytes = 0};
    tell_all(change, [this, change, set](Status) mutable {
      change.step = NameChange::Step::kClose;
      tell_all(change, [this, set](Status) { succeed(set); });
    });
  }

  void succeed(NamedSet set) {
    ordered.front().reply.ok(bytes_of(set));
    next();
  }
  void fail(int number, std::string_view why = {}) {
    ordered.front().reply.fail(number,
                               why.empty() ? "set " + ordered.front().name : std::string(why));
    next();
  }
  void fail(const Error& why) {
    ordered.front().reply.fail(why);
    next();
  }
  // Not from inside itself: a thousand requests that are answered at once must not nest.
  void next() {
    ordered.pop_front();
    if (ordered.empty()) return;
    messenger.loop().post([weak = self] {
      if (auto impl = weak.lock()) impl->carry_out();
    });
  }

  // Has every living node make the change. `done` gets the first error but that of a node's death.
  void tell_all(const NameChange& change, std::function<void(Status)> done) {
    struct Count {
      unsigned missing = 1;
      Status status;
      std::function<void(Status)> done;
      void arrived() {
        if (--missing == 0) done(status);
      }
    };
    auto count = std::make_shared<Count>();
    count->done = std::move(done);
    for (uint16_t node = 0; node < messenger.node_count(); ++node) {
      if (messenger.is_failed(NodeId{node})) continue;
      ++count->missing;
      messenger.request(NodeId{node}, change, ordered.front().name,
                        [weak = self, count](Result<std::string> reply) {
                          if (weak.expired()) return;
                          if (!reply && reply.error().errno_or(0) != EHOSTDOWN && count->status)
                            count->status = reply.error();
                          count->arrived();
                        });
    }
    count->arrived();
  }

  void change(const NameChange& change, std::string_view name, Messenger::Reply reply) {
    const SetId id{change.id};
    switch (change.step) {
      case NameChange::Step::kOpen:
        if (auto opened = open(id, name, change.object_bytes); !opened)
          return reply.fail(opened.error());
        return reply.ok();
      case NameChange::Step::kStop:
        return stop(id,
                    [kept = std::make_shared<Messenger::Reply>(std::move(reply))] { kept->ok(); });
      case NameChange::Step::kClose:
        close(id);
        return reply.ok();
    }
  }

  Status open(SetId id, std::string_view name, uint64_t object_bytes) {
    auto found = names.find(name);
    if (found != names.end() && found->second.set.id == id) return {};
    // Left by an orderer that died before everybody had it.
    if (found != names.end()) close(found->second.set.id);
    auto opened = kddm.open_set(id, {.object_bytes = object_bytes,
                                     .objects_per_manager = std::clamp<uint64_t>(
                                         kManagedBytes / object_bytes, 1, kManagedObjects)});
    if (!opened) return opened;
    names[std::string(name)] = {{id, object_bytes}, false};
    name_of[id.value] = name;
    return {};
  }

  void close(SetId id) {
    auto named = name_of.extract(id.value);
    if (named.empty()) return;
    names.erase(named.mapped());
    kddm.retire_set(id);
  }
};

SetNames::SetNames(Messenger& messenger, Kddm& kddm, Stop stop)
    : impl_(std::make_shared<Impl>(messenger, kddm, std::move(stop))) {
  impl_->self = impl_;
  messenger.on_request<NameRequest>([weak = impl_->self](NodeId, const NameRequest& request,
                                                         std::string_view name,
                                                         Messenger::Reply reply) {
    if (auto impl = weak.lock()) impl->order(request, name, std::move(reply));
  });
  messenger.on_request<NameChange>([weak = impl_->self](NodeId, const NameChange& change,
                                                        std::string_view name,
                                                        Messenger::Reply reply) {
    if (auto impl = weak.lock()) impl->change(change, name, std::move(reply));
  });
}
SetNames::~SetNames() = default;

void SetNames::ask(Verb verb, std::string_view name, uint64_t object_bytes, Done done) {
  if (auto valid = check_request(verb, name, object_bytes); !valid) return done(valid.error());
  auto asked = std::make_shared<Impl::Asked>();
  asked->verb = verb;
  asked->name = name;
  asked->object_bytes = object_bytes;
  asked->done = std::move(done);
  impl_->ask(std::move(asked));
}

std::optional<NamedSet> SetNames::find(SetId id) const {
  auto name = impl_->name_of.find(id.value);
  if (name == impl_->name_of.end()) return std::nullopt;
  return impl_->names.find(name->second)->second.set;
}

}  // namespace krg
