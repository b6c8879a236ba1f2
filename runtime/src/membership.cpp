// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/membership.h"

#include <algorithm>

#include "krg/runtime/check.h"
#include "krg/runtime/log.h"
#include "krg/runtime/signs_of_life.h"

namespace krg {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// How soon a change is asked for again when the leader went or has not settled yet.
constexpr milliseconds kAskAgain{20};

struct HeartbeatNotice {
  static constexpr uint16_t kId = 0;
  uint8_t version = 1;
};
static_assert(sizeof(HeartbeatNotice) == 1);

// To all, and to the dead node itself.
struct DeathNotice {
  static constexpr uint16_t kId = 1;
  uint8_t version = 1;
  uint8_t unused = 0;
  NodeId dead;
};
static_assert(sizeof(DeathNotice) == 4);

// Leader to all. Payload: a byte per node, 1 when it is online.
struct ViewRequest {
  static constexpr uint16_t kId = 2;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t epoch = 0;
};
static_assert(sizeof(ViewRequest) == 16);

// Anyone to the leader; EAGAIN: ask again.
struct ChangeRequest {
  static constexpr uint16_t kId = 3;
  uint8_t version = 1;
  uint8_t online = 0;
  NodeId node;
};
static_assert(sizeof(ChangeRequest) == 4);

// New leader to all. Reply: the epoch (8 bytes) and the online bytes.
struct ViewQuery {
  static constexpr uint16_t kId = 4;
  uint8_t version = 1;
};
static_assert(sizeof(ViewQuery) == 1);

// Calls `done` once all of several answers have come.
class Gather {
 public:
  explicit Gather(std::function<void()> done) : done_(std::move(done)) {}
  ~Gather() { done_(); }

 private:
  std::function<void()> done_;
};

}  // namespace

struct Membership::Impl : std::enable_shared_from_this<Membership::Impl> {
  Impl(Messenger& m, Options o)
      : messenger(m),
        options(o),
        signs_of_life(dynamic_cast<const SignsOfLife*>(&m.transport())),
        online(m.node_count(), '\1'),
        dead(m.node_count(), false) {
    check(signs_of_life != nullptr, "a transport counts what comes from other nodes");
  }

  void start();
  void heartbeat();
  NodeId neighbour(int step) const;
  NodeId leader() const;
  bool leads() const { return leader() == messenger.self(); }

  void told_of_death(NodeId node);
  void died(NodeId node);
  void lead();
  void adopt(uint64_t new_epoch, std::string new_online);
  void publish(std::function<void()> known);
  void change_asked(const ChangeRequest& change, Messenger::Reply reply);
  void ask(ChangeRequest change, std::function<void(Status)> done);

  Messenger& messenger;
  const Options options;
  const SignsOfLife* const signs_of_life;
  uint64_t epoch = 1;
  std::string online;  // a byte per node
  std::vector<bool> dead;
  bool settled = true;  // as the leader: the newest view is known
  NodeId predecessor = kNoNode;
  uint64_t heard = 0;           // of the predecessor (SignsOfLife)
  Clock::duration silence{0};   // since then, as far as this node listened
  Clock::time_point last_beat;  // of our own timer
  EventLoop::Timer beat;
  std::vector<EventLoop::Timer> retries;
  std::vector<std::function<void()>> change_listeners, exclusion_listeners;
  std::vector<std::function<void(NodeId)>> death_listeners;
};

Membership::Membership(Messenger& messenger, Options options)
    : impl_(std::make_shared<Impl>(messenger, options)) {
  impl_->start();
}

Membership::~Membership() {
  impl_->beat.reset();
}

// Every handler holds the state weakly: the Messenger keeps its handlers for life.
void Membership::Impl::start() {
  auto weak = weak_from_this();
  // It is heard by having come, as every message is.
  messenger.on<HeartbeatNotice>([](NodeId, const HeartbeatNotice&, std::string_view) {});
  messenger.on<DeathNotice>([weak](NodeId, const DeathNotice& notice, std::string_view) {
    if (auto self = weak.lock()) self->told_of_death(notice.dead);
  });
  messenger.on_peer_failure([weak](NodeId node) {
    if (auto self = weak.lock()) self->died(node);
  });
  messenger.on_request<ViewRequest>(
      [weak](NodeId from, const ViewRequest& view, std::string_view bytes, Messenger::Reply reply) {
        auto self = weak.lock();
        if (!self || bytes.size() != self->online.size()) return reply.fail(EPROTO);
        log_debug("membership", "view {} from n{}", view.epoch, from.value);
        if (view.epoch > self->epoch) self->adopt(view.epoch, std::string(bytes));
        reply.ok();
      });
  messenger.on_request<ChangeRequest>(
      [weak](NodeId, const ChangeRequest& change, std::string_view, Messenger::Reply reply) {
        if (auto self = weak.lock()) self->change_asked(change, std::move(reply));
      });
  messenger.on_request<ViewQuery>(
      [weak](NodeId, const ViewQuery&, std::string_view, Messenger::Reply reply) {
        auto self = weak.lock();
        if (!self) return;
        std::string answer(reinterpret_cast<const char*>(&self->epoch), sizeof self->epoch);
        reply.ok(answer + self->online);
      });
  last_beat = Clock::now();
  beat = messenger.loop().every(options.heartbeat_period, [weak] {
    if (auto self = weak.lock()) self->heartbeat();
  });
}

// The next live node upwards (step 1) or downwards (-1) in the ring; this node when it is alone.
NodeId Membership::Impl::neighbour(int step) const {
  const int count = static_cast<int>(dead.size());
  int n = messenger.self().value;
  do n = (n + step + count) % count;
  while (dead[static_cast<size_t>(n)]);
  return NodeId{static_cast<uint16_t>(n)};
}

NodeId Membership::Impl::leader() const {
  return NodeId{static_cast<uint16_t>(std::find(dead.begin(), dead.end(), false) - dead.begin())};
}

// Silence is counted from the first beat that heard nothing new: a death is noticed at most one
// period after the timeout.
void Membership::Impl::heartbeat() {
  const auto now = Clock::now();
  const auto since = now - std::exchange(last_beat, now);
  const NodeId before = neighbour(-1), after = neighbour(1);
  if (after == messenger.self()) return;
  // A failure to send comes by on_peer_failure.
  static_cast<void>(messenger.send(after, HeartbeatNotice{}));
  const bool another = std::exchange(predecessor, before) != before;
  const uint64_t heard_before = std::exchange(heard, signs_of_life->heard(before));
  // A node that stood still itself has no right to judge: what came meanwhile may lie unread, and
  // is read before the next beat.
  silence += std::min<Clock::duration>(since, 2 * options.heartbeat_period);
  if (another || heard != heard_before) silence = {};
  // Beats are a little early or late.
  if (silence + options.heartbeat_period / 4 < options.timeout) return;
  log_warn("membership", "n{} was silent for {} ms: taken for dead", before.value,
           std::chrono::duration_cast<milliseconds>(silence).count());
  told_of_death(before);
}

// Somebody, or our own clock, says that the node is dead; if that is news here, tells it, so that
// it knows, and gives it up.
void Membership::Impl::told_of_death(NodeId node) {
  if (node.value >= dead.size()) return;
  if (node == messenger.self()) {
    log_error("membership", "the others hold this node for dead");
    for (size_t i = 0; i < exclusion_listeners.size(); ++i) exclusion_listeners[i]();
    return;
  }
  if (dead[node.value] || messenger.is_failed(node)) return;
  static_cast<void>(messenger.send(node, DeathNotice{.dead = node}));
  messenger.mark_failed(node);  // died() follows from the loop
}

void Membership::Impl::died(NodeId node) {
  if (dead[node.value]) return;
  const bool leader_died = node == leader();
  dead[node.value] = true;
  const bool was_online = std::exchange(online[node.value], '\0') != '\0';
  log_warn("membership", "n{} is dead", node.value);
  for (uint16_t n = 0; n < dead.size(); ++n)
    if (!dead[n] && n != messenger.self().value)
      static_cast<void>(messenger.send(NodeId{n}, DeathNotice{.dead = node}));
  for (size_t i = 0; i < death_listeners.size(); ++i) death_listeners[i](node);
  if (was_online)
    for (size_t i = 0; i < change_listeners.size(); ++i) change_listeners[i]();
  if (leader_died && leads()) lead();
}

// This node has become the leader: it learns the newest view that any survivor has, and publishes
// it again under a new epoch, since the old leader may have told only some.
void Membership::Impl::lead() {
  settled = false;
  struct Newest {
    uint64_t epoch;
    std::string online;
  };
  auto newest = std::make_shared<Newest>(Newest{epoch, online});
  auto all_answered = std::make_shared<Gather>([weak = weak_from_this(), newest] {
    auto self = weak.lock();
    if (!self) return;
    self->settled = true;
    self->adopt(newest->epoch + 1, newest->online);
    self->publish([] {});
  });
  for (uint16_t n = 0; n < dead.size(); ++n) {
    if (dead[n] || n == messenger.self().value) continue;
    messenger.request(NodeId{n}, ViewQuery{}, {}, [newest, all_answered](Result<std::string> view) {
      uint64_t their_epoch = 0;
      if (!view || view->size() != sizeof their_epoch + newest->online.size()) return;
      std::memcpy(&their_epoch, view->data(), sizeof their_epoch);
      if (their_epoch > newest->epoch) *newest = {their_epoch, view->substr(sizeof their_epoch)};
    });
  }
}

void Membership::Impl::adopt(uint64_t new_epoch, std::string new_online) {
  for (size_t n = 0; n < dead.size(); ++n)
    if (dead[n]) new_online[n] = '\0';
  epoch = new_epoch;
  if (std::exchange(online, new_online) == new_online) return;
  for (size_t i = 0; i < change_listeners.size(); ++i) change_listeners[i]();
}

// Sends this node's view to all; `known` runs when every live one has it.
void Membership::Impl::publish(std::function<void()> known) {
  auto all_know = std::make_shared<Gather>(std::move(known));
  for (uint16_t n = 0; n < dead.size(); ++n)
    if (!dead[n] && n != messenger.self().value)
      messenger.request(NodeId{n}, ViewRequest{.epoch = epoch}, online,
                        [all_know](Result<std::string>) {});
}

void Membership::Impl::change_asked(const ChangeRequest& change, Messenger::Reply reply) {
  if (change.node.value >= dead.size()) return reply.fail(EINVAL, "no such node");
  if (!leads() || !settled) return reply.fail(EAGAIN, "not the leader, or not yet");
  if (dead[change.node.value]) return reply.fail(EHOSTDOWN, "the node is dead");
  std::string changed = online;
  changed[change.node.value] = change.online ? '\1' : '\0';
  if (changed.find('\1') == std::string::npos)
    return reply.fail(EBUSY, "the last online node stays");
  if (changed != online) adopt(epoch + 1, changed);
  auto answer = std::make_shared<Messenger::Reply>(std::move(reply));
  publish([answer] { answer->ok(); });
}

void Membership::Impl::ask(ChangeRequest change, std::function<void(Status)> done) {
  messenger.request(
      leader(), change, {},
      [weak = weak_from_this(), change, done = std::move(done)](Result<std::string> reply) mutable {
        auto self = weak.lock();
        if (reply || !self) return done(reply ? Status() : Status(reply.error()));
        const int number = reply.error().errno_or(0);
        // The change is the same however often it is made: ask the next leader.
        const bool leader_went = number == EHOSTDOWN && !self->dead[change.node.value];
        if (number != EAGAIN && !leader_went) return done(reply.error());
        std::erase_if(self->retries, [](const auto& timer) { return !timer; });
        auto again = [weak, change, done = std::move(done)] {
          if (auto alive = weak.lock()) alive->ask(change, done);
        };
        self->retries.push_back(self->messenger.loop().after(kAskAgain, std::move(again)));
      });
}

NodeState Membership::state(NodeId node) const {
  if (impl_->dead.at(node.value)) return NodeState::kDead;
  return impl_->online[node.value] ? NodeState::kOnline : NodeState::kPresent;
}

std::vector<NodeId> Membership::online() const {
  std::vector<NodeId> nodes;
  for (NodeId node : live())
    if (is_online(node)) nodes.push_back(node);
  return nodes;
}

std::vector<NodeId> Membership::live() const {
  std::vector<NodeId> nodes;
  for (uint16_t n = 0; n < impl_->dead.size(); ++n)
    if (!impl_->dead[n]) nodes.push_back(NodeId{n});
  return nodes;
}

NodeId Membership::leader() const {
  return impl_->leader();
}
uint64_t Membership::epoch() const {
  return impl_->epoch;
}
void Membership::set_online(NodeId node, bool online, std::function<void(Status)> done) {
  impl_->ask({.online = online, .node = node}, std::move(done));
}
void Membership::on_change(std::function<void()> changed) {
  impl_->change_listeners.push_back(std::move(changed));
}
void Membership::on_death(std::function<void(NodeId)> died) {
  impl_->death_listeners.push_back(std::move(died));
}
void Membership::on_excluded(std::function<void()> excluded) {
  impl_->exclusion_listeners.push_back(std::move(excluded));
}

}  // namespace krg
