// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/messenger.h"

#include <array>
#include <deque>
#include <unordered_map>
#include <vector>

#include "krg/runtime/log.h"

namespace krg {
namespace {

// The transport's handler ids that a Messenger takes (runtime/README.md).
constexpr HandlerId kNotice = 0, kRequest = 1, kReply = 2;

// As the number of an error that has none: its text says all.
constexpr uint16_t kNoNumber = 0xffff;

// Stands before the message struct in the transport's header.
struct Envelope {
  uint64_t call = 0;    // of a request and its reply
  uint16_t id = 0;      // M::kId
  uint16_t number = 0;  // reply: an errno value, 0 for success, kNoNumber
  uint32_t unused = 0;
};
static_assert(sizeof(Envelope) == 16);
static_assert(sizeof(Envelope) + 224 <= kMaxHeaderBytes);

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A message that waits for its turn in the transport's queue.
struct Deferred {
  HandlerId handler;
  std::string header, payload;
  size_t bytes() const { return header.size() + payload.size(); }
};

struct PendingCall {
  NodeId to;
  std::function<void(Result<std::string>)> done;
};

}  // namespace

struct Messenger::Impl : std::enable_shared_from_this<Messenger::Impl> {
  struct Peer {
    std::deque<Deferred> deferred;
    size_t deferred_bytes = 0;
    bool failed = false;
  };

  explicit Impl(Transport& t) : transport(t), peers(t.node_count()) {}

  Status send(NodeId to, HandlerId handler, const Envelope& envelope, std::string_view body,
              std::string_view payload);
  void drain(NodeId to);
  void peer_failed(NodeId peer);
  void fail_calls_to(NodeId peer);
  void fail_later(std::function<void(Result<std::string>)> done, Error error);
  void notice_arrived(NodeId from, const Envelope& envelope, std::string_view body,
                      std::string_view payload);
  void request_arrived(NodeId from, const Envelope& envelope, std::string_view body,
                       std::string_view payload);
  void reply_arrived(NodeId from, const Envelope& envelope, std::string_view payload);

  Transport& transport;
  std::vector<Peer> peers;
  std::unordered_map<uint16_t, NoticeHandler> notice_handlers;
  std::unordered_map<uint16_t, RequestHandler> request_handlers;
  std::unordered_map<uint64_t, PendingCall> calls;
  std::vector<std::function<void(NodeId)>> failure_listeners;
  uint64_t next_call = 1;
};

Messenger::Messenger(Transport& transport) : impl_(std::make_shared<Impl>(transport)) {
  using Arrived = std::function<void(NodeId, const Envelope&, std::string_view, std::string_view)>;
  auto take = [&](HandlerId id, Arrived arrived) {
    transport.set_handler(id, [arrived](NodeId from, std::span<const std::byte> header,
                                        std::span<const std::byte> payload) {
      Envelope envelope;
      if (header.size() < sizeof envelope)
        return log_warn("messenger", "n{} sent a header of {} bytes", from.value, header.size());
      std::memcpy(&envelope, header.data(), sizeof envelope);
      arrived(from, envelope, text_of(header.subspan(sizeof envelope)), text_of(payload));
    });
  };
  Impl* impl = impl_.get();
  take(kNotice, [impl](NodeId from, const Envelope& e, std::string_view body,
                       std::string_view payload) { impl->notice_arrived(from, e, body, payload); });
  take(kRequest,
       [impl](NodeId from, const Envelope& e, std::string_view body, std::string_view payload) {
         impl->request_arrived(from, e, body, payload);
       });
  take(kReply, [impl](NodeId from, const Envelope& e, std::string_view, std::string_view payload) {
    impl->reply_arrived(from, e, payload);
  });
  transport.on_writable([impl](NodeId to) { impl->drain(to); });
  transport.on_peer_failure([impl](NodeId peer) { impl->peer_failed(peer); });
}

Messenger::~Messenger() {
  for (HandlerId id : {kNotice, kRequest, kReply}) impl_->transport.set_handler(id, {});
  impl_->transport.on_writable({});
  impl_->transport.on_peer_failure({});
}

NodeId Messenger::self() const {
  return impl_->transport.self();
}
unsigned Messenger::node_count() const {
  return impl_->transport.node_count();
}
EventLoop& Messenger::loop() const {
  return impl_->transport.loop();
}
Transport& Messenger::transport() const {
  return impl_->transport;
}
size_t Messenger::deferred_bytes(NodeId peer) const {
  return impl_->peers[peer.value].deferred_bytes;
}
bool Messenger::is_failed(NodeId peer) const {
  return impl_->peers.at(peer.value).failed;
}
void Messenger::on_peer_failure(std::function<void(NodeId)> failed) {
  impl_->failure_listeners.push_back(std::move(failed));
}
void Messenger::mark_failed(NodeId peer) {
  impl_->transport.mark_failed(peer);
}
void Messenger::set_notice_handler(uint16_t id, NoticeHandler handler) {
  impl_->notice_handlers[id] = std::move(handler);
}
void Messenger::set_request_handler(uint16_t id, RequestHandler handler) {
  impl_->request_handlers[id] = std::move(handler);
}

Status Messenger::send_notice(NodeId to, uint16_t id, std::string_view body,
                              std::string_view payload) {
  return impl_->send(to, kNotice, {.id = id}, body, payload);
}

void Messenger::send_request(NodeId to, uint16_t id, std::string_view body,
                             std::string_view payload,
                             std::function<void(Result<std::string>)> done) {
  uint64_t call = impl_->next_call++;
  Status sent = impl_->send(to, kRequest, {.call = call, .id = id}, body, payload);
  if (!sent) return impl_->fail_later(std::move(done), sent.error());
  impl_->calls.emplace(call, PendingCall{to, std::move(done)});
}

// Hands the message to the transport, or queues it behind those that already wait.
Status Messenger::Impl::send(NodeId to, HandlerId handler, const Envelope& envelope,
                             std::string_view body, std::string_view payload) {
  if (payload.size() > kMaxPayloadBytes) return errno_error("message payload", EMSGSIZE);
  Peer& peer = peers.at(to.value);
  if (peer.failed) return errno_error("message to a failed node", EHOSTDOWN);
  char header[kMaxHeaderBytes];
  std::memcpy(header, &envelope, sizeof envelope);
  if (!body.empty()) std::memcpy(header + sizeof envelope, body.data(), body.size());
  std::string_view head(header, sizeof envelope + body.size());
  if (peer.deferred.empty()) {
    Status sent = transport.send(to, handler, bytes_of(head), bytes_of(payload));
    if (sent || sent.error().errno_or(0) != ENOBUFS) return sent;
  }
  Deferred waiting{handler, std::string(head), std::string(payload)};
  if (peer.deferred_bytes + waiting.bytes() > kMaxDeferredBytes) {
    log_error("messenger", "n{} does not drain its queue: giving it up", to.value);
    transport.mark_failed(to);
    return errno_error("message to a node that does not drain", EHOSTDOWN);
  }
  peer.deferred_bytes += waiting.bytes();
  peer.deferred.push_back(std::move(waiting));
  return {};
}

void Messenger::Impl::drain(NodeId to) {
  Peer& peer = peers[to.value];
  while (!peer.deferred.empty()) {
    Deferred& first = peer.deferred.front();
    Status sent =
        transport.send(to, first.handler, bytes_of(first.header), bytes_of(first.payload));
    if (!sent) return;  // full again, or failed: then peer_failed() clears the queue
    peer.deferred_bytes -= first.bytes();
    peer.deferred.pop_front();
  }
}

void Messenger::Impl::fail_later(std::function<void(Result<std::string>)> done, Error error) {
  transport.loop().post([done = std::move(done), error = std::move(error)] { done(error); });
}

void Messenger::Impl::peer_failed(NodeId peer) {
  auto keep = shared_from_this();
  peers[peer.value].failed = true;
  peers[peer.value].deferred.clear();
  peers[peer.value].deferred_bytes = 0;
  fail_calls_to(peer);
  for (size_t i = 0; i < failure_listeners.size(); ++i) failure_listeners[i](peer);
}

void Messenger::Impl::fail_calls_to(NodeId peer) {
  std::vector<PendingCall> failed;
  for (auto i = calls.begin(); i != calls.end();) {
    auto next = std::next(i);
    if (i->second.to == peer) failed.push_back(std::move(calls.extract(i).mapped()));
    i = next;
  }
  for (auto& call : failed) call.done(errno_error("the node failed", EHOSTDOWN));
}

void Messenger::Impl::notice_arrived(NodeId from, const Envelope& envelope, std::string_view body,
                                     std::string_view payload) {
  auto found = notice_handlers.find(envelope.id);
  if (found == notice_handlers.end())
    return log_warn("messenger", "notice {} from n{}: no handler", envelope.id, from.value);
  if (!found->second(from, body, payload))
    log_warn("messenger", "notice {} from n{}: {} bytes is not its size", envelope.id, from.value,
             body.size());
}

void Messenger::Impl::request_arrived(NodeId from, const Envelope& envelope, std::string_view body,
                                      std::string_view payload) {
  auto found = request_handlers.find(envelope.id);
  if (found == request_handlers.end()) {
    log_warn("messenger", "request {} from n{}: no handler", envelope.id, from.value);
    Reply(weak_from_this(), from, envelope.call).fail(ENOSYS, "no handler for this request");
    return;
  }
  if (found->second(from, body, payload, Reply(weak_from_this(), from, envelope.call))) return;
  // The Reply went with the refused call and has answered ECANCELED.
  log_warn("messenger", "request {} from n{}: {} bytes is not its size", envelope.id, from.value,
           body.size());
}

void Messenger::Impl::reply_arrived(NodeId from, const Envelope& envelope,
                                    std::string_view payload) {
  auto found = calls.find(envelope.call);
  if (found == calls.end() || found->second.to != from) return;
  auto done = std::move(calls.extract(found).mapped().done);
  if (envelope.number == 0) return done(std::string(payload));
  if (envelope.number == kNoNumber) return done(text_error(std::string(payload)));
  done(errno_error(std::string(payload), envelope.number));
}

Messenger::Reply& Messenger::Reply::operator=(Reply&& other) noexcept {
  if (this == &other) return *this;
  answer(ECANCELED, "dropped unanswered");
  owner_ = std::move(other.owner_);
  to_ = other.to_;
  call_ = other.call_;
  return *this;
}

Messenger::Reply::~Reply() {
  answer(ECANCELED, "dropped unanswered");
}

void Messenger::Reply::ok(std::string_view payload) {
  if (payload.size() > kMaxPayloadBytes) return fail(EMSGSIZE, "reply payload");
  answer(0, payload);
}

void Messenger::Reply::fail(int number, std::string_view why) {
  check(number != 0, "a failure has a number");
  answer(number, why);
}

void Messenger::Reply::fail(const Error& why) {
  const int number = why.errno_or(kNoNumber);
  number == kNoNumber ? answer(number, why.message()) : answer(number, why.context);
}

// The first answer counts; a Reply that was moved from or answered, or whose Messenger is gone,
// says nothing.
void Messenger::Reply::answer(int number, std::string_view payload) {
  auto owner = std::exchange(owner_, {}).lock();
  if (!owner) return;
  Envelope envelope{.call = call_, .number = static_cast<uint16_t>(number)};
  Status sent = owner->send(to_, kReply, envelope, {}, payload);
  if (!sent && !owner->peers[to_.value].failed)
    log_debug("messenger", "reply to n{}: {}", to_.value, sent.error().message());
}

}  // namespace krg
