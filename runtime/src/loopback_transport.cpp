// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/loopback_transport.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <unordered_map>
#include <vector>

#include "krg/runtime/signs_of_life.h"

namespace krg {
namespace {

// Deliveries made before the loop looks at its descriptors again.
constexpr int kBatch = 64;

// What is under way from one node to another: a message, or a one-sided operation.
struct Parcel {
  uint16_t from, to;
  HandlerId handler = 0;
  std::vector<std::byte> header = {}, payload = {};
  // Carries the operation out at its target and completes it, or completes it with the error.
  // Empty: a message.
  std::function<void(Status)> one_sided = {};

  size_t message_bytes() const { return header.size() + payload.size(); }
};

}  // namespace

struct LoopbackFabric::Impl : std::enable_shared_from_this<LoopbackFabric::Impl> {
  // What one node sends to another.
  struct Lane {
    uint64_t last_due = 0;
    size_t queued_bytes = 0;
    bool wants_writable = false;
  };

  Impl(EventLoop& l, Options o) : loop(l), options(o), random(o.seed.value_or(0)) {}

  Lane& lane(unsigned from, unsigned to) { return lanes[from * options.nodes + to]; }
  void enter(Parcel parcel);
  void schedule();
  void pump();
  void deliver(Parcel parcel);
  void leave(const Parcel& parcel);
  void drop_between(unsigned from, unsigned to);
  void fail_one_sided(unsigned from, unsigned to);

  EventLoop& loop;
  const Options options;
  std::mt19937_64 random;
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<Lane> lanes;
  std::vector<bool> dead, receiving;
  // By the step at which it is due; equal keys stay in the order of sending.
  std::multimap<uint64_t, Parcel> under_way;
  std::vector<std::deque<Parcel>> stalled;  // by target, while that does not receive
  uint64_t step = 0, next_key = 1;
  bool scheduled = false;
};

class LoopbackFabric::Node final : public Transport, public SignsOfLife {
 public:
  Node(Impl& fabric, NodeId self)
      : fabric_(fabric), self_(self), failed_(fabric.options.nodes), heard_(fabric.options.nodes) {}

  std::string_view name() const override { return "loopback"; }
  NodeId self() const override { return self_; }
  unsigned node_count() const override { return fabric_.options.nodes; }
  EventLoop& loop() const override { return fabric_.loop; }
  void set_handler(HandlerId id, MessageHandler handler) override {
    check(id < kMaxHandlers, "a handler id is below kMaxHandlers");
    handlers_[id] = std::move(handler);
  }
  Status send(NodeId to, HandlerId id, std::span<const std::byte> header,
              std::span<const std::byte> payload) override;
  void on_writable(std::function<void(NodeId)> writable) override {
    writable_ = std::move(writable);
  }
  size_t send_queue_limit_bytes() const override { return fabric_.options.send_queue_limit_bytes; }
  uint64_t heard(NodeId from) const override { return heard_.at(from.value); }
  Result<std::unique_ptr<MemoryRegion>> register_memory(std::span<std::byte> bytes) override;
  void get(NodeId from, const RemoteRegion& remote, uint64_t offset, std::span<std::byte> local,
           Completion done) override;
  void put(NodeId to, const RemoteRegion& remote, uint64_t offset, std::span<const std::byte> local,
           Completion done) override;
  void fetch_add(NodeId at, const RemoteRegion& remote, uint64_t offset, uint64_t add,
                 AtomicCompletion done) override;
  void compare_swap(NodeId at, const RemoteRegion& remote, uint64_t offset, uint64_t expected,
                    uint64_t desired, AtomicCompletion done) override;
  void on_peer_failure(std::function<void(NodeId)> failed) override {
    on_failed_ = std::move(failed);
  }
  void mark_failed(NodeId peer) override;

  void receive(const Parcel& message);
  void writable(NodeId to) {
    if (writable_) writable_(to);
  }

 private:
  class Region;
  using Access = std::function<void(Result<std::byte*>)>;
  void access(NodeId at, const RemoteRegion& remote, uint64_t offset, size_t length,
              Access carry_out);
  void atomic(NodeId at, const RemoteRegion& remote, uint64_t offset, AtomicCompletion done,
              std::function<uint64_t(uint64_t)> next);

  Impl& fabric_;
  const NodeId self_;
  std::array<MessageHandler, kMaxHandlers> handlers_;
  std::unordered_map<uint64_t, std::span<std::byte>> regions_;
  std::vector<bool> failed_;
  std::vector<uint64_t> heard_;  // messages, by sender
  std::function<void(NodeId)> writable_, on_failed_;
};

class LoopbackFabric::Node::Region final : public MemoryRegion {
 public:
  Region(std::weak_ptr<Impl> fabric, Node& node, uint64_t key, std::span<std::byte> bytes)
      : fabric_(std::move(fabric)), node_(node), key_(key), bytes_(bytes) {}
  ~Region() override {
    if (auto alive = fabric_.lock()) node_.regions_.erase(key_);
  }
  RemoteRegion remote() const override {
    return {reinterpret_cast<uint64_t>(bytes_.data()), key_, bytes_.size()};
  }
  std::span<std::byte> bytes() const override { return bytes_; }

 private:
  std::weak_ptr<Impl> fabric_;
  Node& node_;
  uint64_t key_;
  std::span<std::byte> bytes_;
};

void LoopbackFabric::Impl::enter(Parcel parcel) {
  if (dead[parcel.from]) return;
  uint64_t due = step;
  if (options.seed) due += random() % (options.max_delay_steps + 1);
  if (!parcel.one_sided) {
    Lane& used = lane(parcel.from, parcel.to);
    due = used.last_due = std::max(due, used.last_due);
    used.queued_bytes += parcel.message_bytes();
  }
  under_way.emplace(due, std::move(parcel));
  schedule();
}

void LoopbackFabric::Impl::schedule() {
  if (scheduled || under_way.empty()) return;
  scheduled = true;
  loop.post([weak = weak_from_this()] {
    if (auto self = weak.lock()) self->pump();
  });
}

void LoopbackFabric::Impl::pump() {
  scheduled = false;
  for (int i = 0; i < kBatch && !under_way.empty(); ++i) {
    auto first = under_way.extract(under_way.begin());
    ++step;
    deliver(std::move(first.mapped()));
  }
  schedule();
}

void LoopbackFabric::Impl::deliver(Parcel parcel) {
  if (!receiving[parcel.to]) {
    stalled[parcel.to].push_back(std::move(parcel));
    return;
  }
  if (parcel.one_sided) return parcel.one_sided({});
  leave(parcel);
  nodes[parcel.to]->receive(parcel);
}

// The message has left its sender's queue.
void LoopbackFabric::Impl::leave(const Parcel& parcel) {
  Lane& used = lane(parcel.from, parcel.to);
  used.queued_bytes -= parcel.message_bytes();
  if (!used.wants_writable || used.queued_bytes >= options.send_queue_limit_bytes / 2) return;
  used.wants_writable = false;
  nodes[parcel.from]->writable(NodeId{parcel.to});
}

// Loses what is under way.
void LoopbackFabric::Impl::drop_between(unsigned from, unsigned to) {
  fail_one_sided(from, to);
  auto lost = [&](const Parcel& p) { return p.from == from && p.to == to; };
  std::erase_if(under_way, [&](const auto& entry) { return lost(entry.second); });
  std::erase_if(stalled[to], lost);
  lane(from, to) = {};
}

// Takes the one-sided operations out of what is under way; they complete with EHOSTDOWN.
void LoopbackFabric::Impl::fail_one_sided(unsigned from, unsigned to) {
  std::vector<Parcel> failed;
  auto wanted = [&](const Parcel& p) { return p.one_sided && p.from == from && p.to == to; };
  for (auto i = under_way.begin(); i != under_way.end();) {
    auto next = std::next(i);
    if (wanted(i->second)) failed.push_back(std::move(under_way.extract(i).mapped()));
    i = next;
  }
  auto kept = std::stable_partition(stalled[to].begin(), stalled[to].end(), std::not_fn(wanted));
  std::move(kept, stalled[to].end(), std::back_inserter(failed));
  stalled[to].erase(kept, stalled[to].end());
  for (auto& parcel : failed) parcel.one_sided(errno_error("the peer failed", EHOSTDOWN));
}

LoopbackFabric::LoopbackFabric(EventLoop& loop, Options options)
    : impl_(std::make_shared<Impl>(loop, options)) {
  impl_->lanes.resize(size_t{options.nodes} * options.nodes);
  impl_->dead.resize(options.nodes, false);
  impl_->receiving.resize(options.nodes, true);
  impl_->stalled.resize(options.nodes);
  for (unsigned n = 0; n < options.nodes; ++n)
    impl_->nodes.push_back(std::make_unique<Node>(*impl_, NodeId{static_cast<uint16_t>(n)}));
}

LoopbackFabric::~LoopbackFabric() = default;

Transport& LoopbackFabric::node(NodeId id) {
  return *impl_->nodes.at(id.value);
}

void LoopbackFabric::kill(NodeId id, Death death) {
  impl_->dead[id.value] = true;
  impl_->receiving[id.value] = false;
  for (unsigned n = 0; n < impl_->options.nodes; ++n) impl_->drop_between(id.value, n);
  if (death == Death::kSilent) return;
  for (auto& node : impl_->nodes)
    if (node->self() != id) node->mark_failed(id);
}

void LoopbackFabric::set_receiving(NodeId id, bool receiving) {
  impl_->receiving[id.value] = receiving && !impl_->dead[id.value];
  if (!impl_->receiving[id.value]) return;
  std::multimap<uint64_t, Parcel> waiting;  // ahead of all that is under way, in its order
  for (auto& parcel : std::exchange(impl_->stalled[id.value], {}))
    waiting.emplace(0, std::move(parcel));
  waiting.merge(impl_->under_way);
  impl_->under_way = std::move(waiting);
  impl_->schedule();
}

Status LoopbackFabric::Node::send(NodeId to, HandlerId id, std::span<const std::byte> header,
                                  std::span<const std::byte> payload) {
  check(id < kMaxHandlers && header.size() <= kMaxHeaderBytes && payload.size() <= kMaxPayloadBytes,
        "a message keeps its limits");
  if (failed_.at(to.value)) return errno_error("send to a failed node", EHOSTDOWN);
  auto& lane = fabric_.lane(self_.value, to.value);
  if (lane.queued_bytes >= send_queue_limit_bytes()) {
    lane.wants_writable = true;
    return errno_error("send queue full", ENOBUFS);
  }
  Parcel parcel{.from = self_.value, .to = to.value, .handler = id};
  parcel.header.assign(header.begin(), header.end());
  parcel.payload.assign(payload.begin(), payload.end());
  fabric_.enter(std::move(parcel));
  return {};
}

void LoopbackFabric::Node::receive(const Parcel& message) {
  if (failed_[message.from]) return;  // declared dead: whatever it still says is not heard
  ++heard_[message.from];
  if (const auto& handler = handlers_[message.handler])
    handler(NodeId{message.from}, message.header, message.payload);
}

void LoopbackFabric::Node::mark_failed(NodeId peer) {
  if (peer == self_ || failed_.at(peer.value)) return;
  failed_[peer.value] = true;
  fabric_.loop.post([weak = fabric_.weak_from_this(), this, peer] {
    auto alive = weak.lock();
    if (!alive) return;
    // Messages that have left go on: the peer may only have stood still.
    fabric_.fail_one_sided(self_.value, peer.value);
    if (on_failed_) on_failed_(peer);
  });
}

Result<std::unique_ptr<MemoryRegion>> LoopbackFabric::Node::register_memory(
    std::span<std::byte> bytes) {
  uint64_t key = fabric_.next_key++;
  regions_.emplace(key, bytes);
  return std::unique_ptr<MemoryRegion>(
      std::make_unique<Region>(fabric_.weak_from_this(), *this, key, bytes));
}

// Runs `carry_out` with the address at node `at`, when the operation gets there.
void LoopbackFabric::Node::access(NodeId at, const RemoteRegion& remote, uint64_t offset,
                                  size_t length, Access carry_out) {
  Parcel parcel{.from = self_.value, .to = at.value};
  parcel.one_sided = [=, this, carry_out = std::move(carry_out)](Status arrived) {
    if (!arrived) return carry_out(arrived.error());
    const auto& regions = fabric_.nodes[at.value]->regions_;
    auto found = regions.find(remote.key);
    if (found == regions.end()) return carry_out(errno_error("no such region", EFAULT));
    if (offset > found->second.size() || length > found->second.size() - offset)
      return carry_out(errno_error("outside of the region", ERANGE));
    carry_out(found->second.data() + offset);
  };
  if (!failed_.at(at.value)) return fabric_.enter(std::move(parcel));
  fabric_.loop.post([fail = std::move(parcel.one_sided)] {
    fail(errno_error("one-sided operation on a failed node", EHOSTDOWN));
  });
}

void LoopbackFabric::Node::get(NodeId from, const RemoteRegion& remote, uint64_t offset,
                               std::span<std::byte> local, Completion done) {
  access(from, remote, offset, local.size(),
         [local, done = std::move(done)](Result<std::byte*> source) {
           if (!source) return done(source.error());
           if (!local.empty()) std::memcpy(local.data(), *source, local.size());
           done({});
         });
}

void LoopbackFabric::Node::put(NodeId to, const RemoteRegion& remote, uint64_t offset,
                               std::span<const std::byte> local, Completion done) {
  access(to, remote, offset, local.size(),
         [local, done = std::move(done)](Result<std::byte*> target) {
           if (!target) return done(target.error());
           if (!local.empty()) std::memcpy(*target, local.data(), local.size());
           done({});
         });
}

void LoopbackFabric::Node::atomic(NodeId at, const RemoteRegion& remote, uint64_t offset,
                                  AtomicCompletion done, std::function<uint64_t(uint64_t)> next) {
  access(at, remote, offset, sizeof(uint64_t),
         [done = std::move(done), next = std::move(next)](Result<std::byte*> target) {
           if (!target) return done(target.error());
           uint64_t previous;
           std::memcpy(&previous, *target, sizeof previous);
           uint64_t now = next(previous);
           std::memcpy(*target, &now, sizeof now);
           done(previous);
         });
}

void LoopbackFabric::Node::fetch_add(NodeId at, const RemoteRegion& remote, uint64_t offset,
                                     uint64_t add, AtomicCompletion done) {
  atomic(at, remote, offset, std::move(done), [add](uint64_t value) { return value + add; });
}

void LoopbackFabric::Node::compare_swap(NodeId at, const RemoteRegion& remote, uint64_t offset,
                                        uint64_t expected, uint64_t desired,
                                        AtomicCompletion done) {
  atomic(at, remote, offset, std::move(done),
         [=](uint64_t value) { return value == expected ? desired : value; });
}

}  // namespace krg
