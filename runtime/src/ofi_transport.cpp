// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/ofi_transport.h"

#include <sys/epoll.h>

#include <deque>
#include <map>
#include <vector>

#include "adaptive_spin.h"
#include "connection_cutter.h"
#include "endpoint_address.h"
#include "krg/runtime/log.h"
#include "krg/runtime/signs_of_life.h"
#include "listener_probe.h"
#include "message_streams.h"
#include "ofi_handles.h"
#include "ofi_one_sided.h"
#include "ofi_operations.h"

namespace krg {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

constexpr size_t kReceives = 32;       // posted frames, each as long as a large one
constexpr size_t kFramesPerPeer = 32;  // in flight
constexpr size_t kLargeFramesPerPeer = 4;
// Then the loop serves what else is ready: a stream of messages must not keep programs waiting.
constexpr int kCompletionsPerRound = 16;
// How soon to try again what the provider had no room for, when nothing else wakes the loop.
constexpr microseconds kRetry{500};
// How long a peer may have no room before its kernel is asked whether there still is such a
// process, and how soon again.
constexpr std::chrono::milliseconds kDoubt{100}, kAskAgain{1000};
// How long the provider may take to give back the operations of a cut connection.
constexpr microseconds kFlush{500'000};

// An error that says something about the operation, not about the peer.
bool blames_operation(int number) {
  return number == FI_EKEYREJECTED || number == FI_EACCES || number == FI_EPERM ||
         number == FI_EINVAL || number == FI_EMSGSIZE || number == FI_EFAULT;
}

class OfiTransport final : public Transport, public SignsOfLife, private FrameCarrier {
 public:
  struct Address {
    std::string name;  // as fi_getname(3) gave it
    fi_addr_t handle;
  };

  OfiTransport(std::unique_ptr<OfiEndpoint::Impl> endpoint, NodeId self,
               std::span<const Address> peers, const Patience* patience);
  ~OfiTransport() override;
  Status start();

  std::string_view name() const override { return "ofi"; }
  NodeId self() const override { return self_; }
  unsigned node_count() const override { return static_cast<unsigned>(peers_.size()); }
  EventLoop& loop() const override { return e_->loop; }
  void set_handler(HandlerId id, MessageHandler handler) override {
    check(id < kMaxHandlers, "a handler id is below kMaxHandlers");
    streams_.set_handler(id, std::move(handler));
  }
  Status send(NodeId to, HandlerId id, std::span<const std::byte> header,
              std::span<const std::byte> payload) override {
    return streams_.send(to, id, header, payload);
  }
  void on_writable(std::function<void(NodeId)> writable) override {
    streams_.on_writable(std::move(writable));
  }
  size_t send_queue_limit_bytes() const override { return kSendQueueLimitBytes; }
  uint64_t heard(NodeId from) const override { return streams_.heard(from); }
  Result<std::unique_ptr<MemoryRegion>> register_memory(std::span<std::byte> bytes) override {
    return one_sided_.register_memory(bytes);
  }
  void get(NodeId from, const RemoteRegion& remote, uint64_t offset, std::span<std::byte> local,
           Completion done) override {
    one_sided_.get(from, remote, offset, local, std::move(done));
  }
  void put(NodeId to, const RemoteRegion& remote, uint64_t offset, std::span<const std::byte> local,
           Completion done) override {
    one_sided_.put(to, remote, offset, local, std::move(done));
  }
  void fetch_add(NodeId at, const RemoteRegion& remote, uint64_t offset, uint64_t add,
                 AtomicCompletion done) override {
    one_sided_.fetch_add(at, remote, offset, add, std::move(done));
  }
  void compare_swap(NodeId at, const RemoteRegion& remote, uint64_t offset, uint64_t expected,
                    uint64_t desired, AtomicCompletion done) override {
    one_sided_.compare_swap(at, remote, offset, expected, desired, std::move(done));
  }
  void on_peer_failure(std::function<void(NodeId)> failed) override {
    on_failed_ = std::move(failed);
  }
  void mark_failed(NodeId peer) override {
    if (peer != self_) peer_failed(peer.value, "declared dead");
  }

 private:
  struct Peer {
    fi_addr_t address;
    std::string name;
    unsigned frames_in_flight = 0;
    unsigned large_in_flight = 0;
    std::deque<FrameOperation*> unposted;  // the provider had no room; in order
    Clock::time_point ask_at;  // when to ask whether the peer is there, as long as it has some
    ListenerProbe probe;
    uint32_t expected = 0;  // the sequence of the next frame from there
    std::map<uint32_t, FrameOperation*> early;
  };

  std::span<std::byte> acquire(NodeId to, size_t wanted) override;
  void release(FrameOperation& frame);
  void post(NodeId to, size_t length) override;
  bool try_post(FrameOperation& frame);
  void post_receive(FrameOperation& frame);

  microseconds idle();
  void watch(bool wanted);
  bool progress();
  void retry_unposted();
  void retry_unposted(uint16_t number);
  bool completed(Operation& operation, size_t length);
  void arrived(FrameOperation& frame);
  void deliver(FrameOperation& frame);
  void failed_completion();
  void peer_failed(uint16_t peer, const std::string& why);
  void cut_off(uint16_t peer);

  std::unique_ptr<OfiEndpoint::Impl> e_;
  const NodeId self_;
  std::vector<Peer> peers_;
  MessageStreams streams_;
  OfiOneSided one_sided_;
  std::vector<std::unique_ptr<FrameOperation>> frames_;  // all there are
  std::vector<FrameOperation*> free_frames_[2];          // the large ones are the second
  std::vector<FrameOperation*> unposted_receives_;
  FrameOperation* acquired_ = nullptr;
  size_t unposted_count_ = 0;  // frames in all peers' unposted
  std::function<void(NodeId)> on_failed_;
  AdaptiveSpin spin_;                      // a look asks the kernel
  std::vector<EventLoop::Timer> flushes_;  // one per failed peer
  EventLoop::Watch watch_;
  bool watched_ = true;
  EventLoop::IdleHook idle_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted to the loop
};

OfiTransport::OfiTransport(std::unique_ptr<OfiEndpoint::Impl> endpoint, NodeId self,
                           std::span<const Address> peers, const Patience* patience)
    : e_(std::move(endpoint)),
      self_(self),
      streams_(e_->loop, *this, self, static_cast<unsigned>(peers.size())),
      one_sided_(*e_, streams_),
      spin_(1, patience) {
  for (const auto& [name, handle] : peers) {
    peers_.emplace_back().address = handle;
    peers_.back().name = name;
    one_sided_.add_peer(handle);
  }
}

OfiTransport::~OfiTransport() {
  idle_.reset();
  watch_.reset();
  alive_.reset();
  e_.reset();  // the provider lets go of all operations before they are freed
}

Status OfiTransport::start() {
  for (size_t i = 0; i < kReceives; ++i) {
    auto& frame = frames_.emplace_back(
        std::make_unique<FrameOperation>(Operation::Kind::kReceive, kLargeFrameBytes));
    post_receive(*frame);
  }
  auto watch = e_->loop.watch(e_->wait_fd, EPOLLIN, [this](uint32_t) { progress(); });
  if (!watch) return watch.error();
  watch_ = std::move(*watch);
  idle_ = e_->loop.add_idle_hook([this] { return idle(); });
  return {};
}

// --- frames -------------------------------------------------------------------------------------

std::span<std::byte> OfiTransport::acquire(NodeId to, size_t wanted) {
  const Peer& peer = peers_[to.value];
  const bool large = wanted >= kLargeFrom;
  if (peer.frames_in_flight >= kFramesPerPeer || !peer.unposted.empty() ||
      (large && peer.large_in_flight >= kLargeFramesPerPeer))
    return {};
  auto& free = free_frames_[large];
  if (free.empty()) {
    frames_.push_back(std::make_unique<FrameOperation>(Operation::Kind::kSend,
                                                       large ? kLargeFrameBytes : kFrameBytes));
    free.push_back(frames_.back().get());
  }
  acquired_ = free.back();
  return {acquired_->buffer.get(), acquired_->size};
}

void OfiTransport::post(NodeId to, size_t length) {
  FrameOperation& frame = *std::exchange(acquired_, nullptr);
  free_frames_[frame.is_large()].pop_back();
  frame.peer = to.value;
  frame.length = length;
  Peer& peer = peers_[to.value];
  ++peer.frames_in_flight;
  peer.large_in_flight += frame.is_large();
  if (try_post(frame)) return;
  if (peer.unposted.empty()) peer.ask_at = Clock::now() + kDoubt;
  peer.unposted.push_back(&frame);
  ++unposted_count_;
}

// The frame is the next one's.
void OfiTransport::release(FrameOperation& frame) {
  free_frames_[frame.is_large()].push_back(&frame);
  --peers_[frame.peer].frames_in_flight;
  peers_[frame.peer].large_in_flight -= frame.is_large();
}

// False when the provider has no room now.
bool OfiTransport::try_post(FrameOperation& frame) {
  Peer& peer = peers_[frame.peer];
  ssize_t returned = fi_send(e_->endpoint.get(), frame.buffer.get(), frame.length, nullptr,
                             peer.address, &frame.context);
  if (returned == -FI_EAGAIN) return false;
  if (returned != 0) {
    release(frame);
    peer_failed(frame.peer, ofi_error("fi_send", returned).message());
  }
  return true;
}

void OfiTransport::post_receive(FrameOperation& frame) {
  ssize_t returned = fi_recv(e_->endpoint.get(), frame.buffer.get(), frame.size, nullptr,
                             FI_ADDR_UNSPEC, &frame.context);
  if (returned == 0) return;
  if (returned != -FI_EAGAIN) log_error("ofi", "{}", ofi_error("fi_recv", returned).message());
  unposted_receives_.push_back(&frame);
}

// --- progress -----------------------------------------------------------------------------------

microseconds OfiTransport::idle() {
  const auto found = spin_.spin([this] { return progress(); });
  watch(found == AdaptiveSpin::Found::kNoHope);
  if (found == AdaptiveSpin::Found::kWork) return EventLoop::kHandled;
  if (found == AdaptiveSpin::Found::kNothing) return microseconds(0);
  if (unposted_count_ > 0 || one_sided_.has_unstarted() || !unposted_receives_.empty())
    return kRetry;
  if (!e_->may_block()) return microseconds(0);
  spin_.blocks();
  return std::chrono::hours(1);
}

// Only a loop that is about to block has the queue's descriptor watched: it stays readable while
// the queue is looked at, and asking for it (three epoll sets deep) takes longer than a look.
void OfiTransport::watch(bool wanted) {
  if (std::exchange(watched_, wanted) != wanted) watch_.set_events(wanted ? uint32_t{EPOLLIN} : 0);
}

// Lets the provider work and handles what completed; true when somebody waited for any of it. The
// end of sending a message is awaited only by those queued behind it: whoever asked for something
// is to be found looking for the answer, or blocked.
bool OfiTransport::progress() {
  int handled = 0;
  bool was_awaited = false;
  while (handled < kCompletionsPerRound) {
    fi_cq_msg_entry entries[16];
    ssize_t count = fi_cq_read(e_->completions.get(), entries, 16);
    if (count == -FI_EAVAIL) {
      failed_completion();
      was_awaited = true;
      ++handled;
      continue;
    }
    if (count <= 0) {
      if (count != -FI_EAGAIN && count != 0)
        log_error("ofi", "{}", ofi_error("fi_cq_read", count).message());
      break;
    }
    for (ssize_t i = 0; i < count; ++i)
      was_awaited |= completed(*static_cast<Operation*>(entries[i].op_context), entries[i].len);
    handled += static_cast<int>(count);
    if (count < 16) break;  // the loop looks again as soon as this round's work is done
  }
  retry_unposted();
  return was_awaited;
}

void OfiTransport::retry_unposted() {
  if (unposted_count_ > 0)
    for (uint16_t number = 0; number < peers_.size(); ++number)
      if (!peers_[number].unposted.empty()) retry_unposted(number);
  one_sided_.retry();
  for (auto* frame : std::exchange(unposted_receives_, {})) post_receive(*frame);
}

void OfiTransport::retry_unposted(uint16_t number) {
  Peer& peer = peers_[number];
  const auto now = Clock::now();
  while (try_post(*peer.unposted.front())) {
    if (peer.unposted.empty()) return;  // the peer failed meanwhile
    peer.unposted.pop_front();
    --unposted_count_;
    if (peer.unposted.empty()) return;
    peer.ask_at = now + kDoubt;
  }
  if (now < peer.ask_at) return;
  peer.ask_at = now + kAskAgain;
  peer.probe = ListenerProbe(e_->loop, peer.name, [this, number] {
    peer_failed(number, "nothing listens at its address any more");
  });
}

bool OfiTransport::completed(Operation& operation, size_t length) {
  if (operation.kind == Operation::Kind::kOneSided) {
    one_sided_.finish(static_cast<OneSidedOperation&>(operation), {});
    return true;
  }
  auto& frame = static_cast<FrameOperation&>(operation);
  if (operation.kind == Operation::Kind::kSend) {
    release(frame);
    return !peers_[frame.peer].unposted.empty() || streams_.pump(NodeId{frame.peer});
  }
  frame.length = length;
  arrived(frame);
  return true;
}

// The provider keeps the order in which frames are matched with what was posted for them, but a
// large one is complete only when it has been read: those behind it wait.
void OfiTransport::arrived(FrameOperation& frame) {
  auto order = order_of({frame.buffer.get(), frame.length}, node_count());
  if (!order) {
    log_error("ofi", "{}", order.error().message());
    return post_receive(frame);
  }
  if (streams_.failed(order->from)) return post_receive(frame);
  Peer& peer = peers_[order->from.value];
  if (order->sequence != peer.expected) {
    peer.early.emplace(order->sequence, &frame);
    return;
  }
  for (FrameOperation* next = &frame; next;) {
    ++peer.expected;
    deliver(*next);
    auto early = peer.early.extract(peer.expected);
    next = early ? early.mapped() : nullptr;
  }
}

void OfiTransport::deliver(FrameOperation& frame) {
  NodeId from;
  Status arrived = streams_.frame_arrived({frame.buffer.get(), frame.length}, &from);
  if (!arrived) {
    log_error("ofi", "{}", arrived.error().message());
    if (from != kNoNode) peer_failed(from.value, arrived.error().message());
  }
  post_receive(frame);
}

void OfiTransport::failed_completion() {
  fi_cq_err_entry entry{};
  if (fi_cq_readerr(e_->completions.get(), &entry, 0) != 1) return;
  const Error error = ofi_error("", entry.err);
  if (!entry.op_context) return log_warn("ofi", "error without operation: {}", error.message());
  auto& operation = *static_cast<Operation*>(entry.op_context);
  if (operation.kind == Operation::Kind::kReceive) {
    log_debug("ofi", "receive: {}", error.message());
    return post_receive(static_cast<FrameOperation&>(operation));
  }
  if (operation.kind == Operation::Kind::kSend) {
    auto& frame = static_cast<FrameOperation&>(operation);
    release(frame);
    return peer_failed(frame.peer, error.message());
  }
  auto& op = static_cast<OneSidedOperation&>(operation);
  const uint16_t peer = op.peer;
  if (blames_operation(entry.err) && !streams_.failed(NodeId{peer}))
    return one_sided_.finish(op, error);
  one_sided_.finish(op, errno_error("one-sided operation", EHOSTDOWN));
  peer_failed(peer, error.message());
}

// Cuts the peer off, fails what is under way to it, and tells of its death from the loop.
void OfiTransport::peer_failed(uint16_t number, const std::string& why) {
  const NodeId node{number};
  if (streams_.failed(node)) return;
  log_warn("ofi", "n{} failed: {}", number, why);
  streams_.fail(node);
  Peer& peer = peers_[number];
  unposted_count_ -= peer.unposted.size();
  for (auto* frame : std::exchange(peer.unposted, {})) release(*frame);
  for (auto& [sequence, frame] : std::exchange(peer.early, {})) post_receive(*frame);
  cut_off(number);
  e_->loop.post([this, node, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    one_sided_.fail_messages(node);
    if (on_failed_) on_failed_(node);
  });
  // One-sided operations fail when the provider gives them back, which the cut makes it do: only
  // then it writes to their memory no more.
  flushes_.push_back(
      e_->loop.after(kFlush, [this, number] { one_sided_.fail_operations(number); }));
}

void OfiTransport::cut_off(uint16_t number) {
  bool shares_host = false;  // with a third node
  for (size_t n = 0; n < peers_.size(); ++n)
    shares_host |=
        n != number && n != self_.value && same_host(peers_[n].name, peers_[number].name);
  const int cut = cut_connections(e_->address, peers_[number].name, shares_host);
  log_debug("ofi", "n{}: {} connections cut", number, cut);
}

}  // namespace

Result<std::unique_ptr<Transport>> make_ofi_transport(std::unique_ptr<OfiEndpoint::Impl> endpoint,
                                                      NodeId self,
                                                      std::span<const std::string> addresses,
                                                      const Patience* patience) {
  std::vector<OfiTransport::Address> peers;
  for (const auto& address : addresses) {
    const NodeId node{static_cast<uint16_t>(peers.size())};
    auto name = endpoint_name(node, address, endpoint->info->fabric_attr->prov_name);
    if (!name) return name.error();
    auto& peer = peers.emplace_back(OfiTransport::Address{std::move(*name), FI_ADDR_UNSPEC});
    int inserted =
        fi_av_insert(endpoint->addresses.get(), peer.name.data(), 1, &peer.handle, 0, nullptr);
    if (inserted != 1) return ofi_error("fi_av_insert", inserted < 0 ? inserted : -EINVAL);
  }
  auto transport = std::make_unique<OfiTransport>(std::move(endpoint), self, peers, patience);
  if (Status started = transport->start(); !started) return started.error();
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace krg
