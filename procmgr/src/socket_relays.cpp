// SPDX-License-Identifier: GPL-2.0-or-later
#include "socket_relays.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "family/socket_state.h"
#include "family/unix_sockets.h"
#include "home_socket.h"
#include "krg/runtime/log.h"

namespace krg {

namespace {

// Whether `other` is the other end of the named socket `end`.
bool is_peer(int end, int other) {
  sockaddr_storage own{}, peer{};
  socklen_t own_bytes = sizeof own, peer_bytes = sizeof peer;
  return getsockname(end, reinterpret_cast<sockaddr*>(&own), &own_bytes) == 0 &&
         getpeername(other, reinterpret_cast<sockaddr*>(&peer), &peer_bytes) == 0 &&
         own_bytes == peer_bytes && own_bytes > sizeof(sa_family_t) &&
         memcmp(&own, &peer, own_bytes) == 0;
}

// Of a unix socket: whether its peer has not read all that was sent (unix(7), SIOCOUTQ). The kernel
// tells of each buffer that has been read, by EPOLLOUT, while it still counts one byte of it
// (sock_wfree() of net/core/sock.c); no further event follows the last one. So few bytes are none:
// a buffer that is not read counts with its head, hundreds of bytes.
bool is_unread(int socket) {
  constexpr int kBytesOfRead = 64;  // by as many readers at once
  int bytes = 0;
  return ioctl(socket, SIOCOUTQ, &bytes) == 0 && bytes > kBytesOfRead;
}

// Of a TCP socket: bytes that the kernel has not handed to its peer yet.
bool is_on_the_way(int socket) {
  int bytes = 0;
  return ioctl(socket, SIOCOUTQNSD, &bytes) != 0 || bytes > 0;
}

// What is in a socket's queue, which stays there; nothing when not all can be seen.
std::optional<std::string> unread_of(int socket) {
  int bytes = 0;
  if (ioctl(socket, FIONREAD, &bytes) != 0) return std::nullopt;
  std::string unread(static_cast<size_t>(bytes), 0);
  if (bytes == 0) return unread;
  iovec part{unread.data(), unread.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  const ssize_t got = recvmsg(socket, &message, MSG_PEEK | MSG_DONTWAIT);
  if (got != bytes || (message.msg_flags & MSG_CTRUNC)) return std::nullopt;
  return unread;
}

}  // namespace

struct SocketRelays::Relay {
  uint64_t number = 0;
  pid_t body = 0;
  NodeId home;
  HomeId id;
  UniqueFd local;                // our end
  bool tells_unread = true;      // a unix socket: what the body has not read yet
  bool paused = false;           // its body is moving
  bool waits = false;            // for the relay that it takes over from
  bool home_ended = false;       // nothing more comes
  bool told_end = false;         // the body, after what came
  bool sending = false;          // a piece is under way home
  bool ended = false;            // the body has shut its writing down
  bool passes_fds = false;       // what the body passes can be taken home
  uint64_t arrived = 0;          // bytes that have come from home
  std::string to_body;           // not yet in the body's socket
  bool unpacking = false;        // descriptors that go with some of it: it waits
  std::vector<UniqueFd> passed;  // they go with the byte there
  size_t passed_at = 0;
  std::string to_home;                    // before what our end has
  std::optional<Messenger::Reply> piece;  // answered when the body has consumed it
  std::vector<std::function<void()>> drained;
  EventLoop::Watch watch;
};

SocketRelays::SocketRelays(NodeContext& node, RemoteHome& home) : node_(node) {
  Messenger& messenger = node_.messenger;
  auto find_socket = [&home](HomeId id) { return dynamic_cast<HomeSocket*>(home.find(id)); };
  messenger.on_request<SocketAttach>([find_socket](NodeId from, const SocketAttach& message,
                                                   std::string_view, Messenger::Reply reply) {
    HomeSocket* socket = find_socket(message.home);
    if (socket == nullptr) return reply.fail(ESTALE, "the socket is gone");
    socket->attach(from, message, std::move(reply));
  });
  messenger.on_request<SocketPause>(
      [find_socket](NodeId, const SocketPause& message, std::string_view, Messenger::Reply reply) {
        HomeSocket* socket = find_socket(message.home);
        if (socket == nullptr) return reply.fail(ESTALE, "the socket is gone");
        socket->pause();
        reply.ok();
      });
  messenger.on<SocketLeave>(
      [find_socket](NodeId from, const SocketLeave& message, std::string_view) {
        if (HomeSocket* socket = find_socket(message.home)) socket->leave(from, message.relay);
      });
  messenger.on_request<SocketToHome>([find_socket](NodeId, const SocketToHome& message,
                                                   std::string_view data, Messenger::Reply reply) {
    HomeSocket* socket = find_socket(message.home);
    if (socket == nullptr) return reply.fail(EPIPE, "the socket is gone");
    socket->take(message, data, std::move(reply));
  });
  messenger.on_request<SocketToBody>(
      [this](NodeId, const SocketToBody& message, std::string_view data, Messenger::Reply reply) {
        auto found = relays_.find(message.relay);
        if (found == relays_.end()) return reply.fail(EPIPE, "the body's socket is closed");
        take_from_home(*found->second, message, data, std::move(reply));
      });
}
SocketRelays::~SocketRelays() {
  *self_ = nullptr;
}

void SocketRelays::take_from_home(Relay& relay, const SocketToBody& message,
                                  std::string_view payload, Messenger::Reply reply) {
  if (message.is_end) {
    relay.home_ended = true;
    reply.ok();
  } else {
    const size_t bytes = payload.size() - std::min<size_t>(message.passed_bytes, payload.size());
    relay.arrived += bytes;
    relay.passed_at = relay.to_body.size();
    relay.to_body += payload.substr(0, bytes);
    relay.piece.emplace(std::move(reply));
    relay.unpacking = bytes < payload.size();
    if (relay.unpacking)
      return passing_.unpack(relay.body, payload.substr(bytes),
                             [this, number = relay.number](Result<std::vector<UniqueFd>> fds) {
                               take_passed(number, std::move(fds));
                             });
  }
  if (!relay.paused) pump_to_body(relay);
}

void SocketRelays::take_passed(uint64_t number, Result<std::vector<UniqueFd>> fds) {
  auto found = relays_.find(number);
  if (found == relays_.end()) return;
  Relay& relay = *found->second;
  relay.unpacking = false;
  if (fds) {
    relay.passed = std::move(*fds);
  } else {
    log_warn("sockets", "a connection is cut off: {}", fds.error().message());
    relay.to_body.resize(relay.passed_at);
    relay.home_ended = true;
    if (auto piece = std::exchange(relay.piece, std::nullopt)) piece->fail(EPIPE);
  }
  if (!relay.paused) pump_to_body(relay);
}

Result<UniqueFd> SocketRelays::open(pid_t body, NodeId home, HomeId id, const Shape& shape,
                                    const Carried* carried) {
  int ends[2];
  if (socketpair(AF_UNIX, shape.type | SOCK_CLOEXEC, 0, ends) != 0)
    return errno_error("socketpair");
  UniqueFd given(ends[0]);
  auto relay = std::make_unique<Relay>();
  relay->local = UniqueFd(ends[1]);
  relay->body = body;
  relay->home = home;
  relay->id = id;
  relay->passes_fds = shape.passes_fds;
  if (shape.flags & O_NONBLOCK) fcntl(given.get(), F_SETFL, O_NONBLOCK);
  if (carried) {
    relay->waits = true;
    relay->to_body = carried->came;
    relay->to_home = carried->wrote;
    relay->arrived = carried->sizes.arrived;
    relay->home_ended = carried->sizes.home_ended != 0;
    relay->ended = carried->sizes.end_is_sent != 0;
    if (carried->sizes.body_ended) shutdown(given.get(), SHUT_WR);
  }
  if (auto begun = begin(std::move(relay), carried ? SocketAttach::kTakesOver : SocketAttach::kNew);
      !begun)
    return begun.error();
  return given;
}

Status SocketRelays::join(UniqueFd local, pid_t body, NodeId home, HomeId id) {
  auto relay = std::make_unique<Relay>();
  relay->local = std::move(local);
  relay->body = body;
  relay->home = home;
  relay->id = id;
  int domain = 0;
  socklen_t size = sizeof domain;
  getsockopt(relay->local.get(), SOL_SOCKET, SO_DOMAIN, &domain, &size);
  relay->tells_unread = relay->passes_fds = domain == AF_UNIX;
  return begin(std::move(relay), SocketAttach::kNew);
}

Status SocketRelays::begin(std::unique_ptr<Relay> begun, SocketAttach::How how) {
  Relay& relay = *begun;
  relay.number = next_++;
  // Edge-triggered: EPOLLOUT then tells each time that the body has consumed something.
  auto made = node_.loop.watch(relay.local.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                               [this, number = relay.number](uint32_t) { pump(number); });
  if (!made) return made.error();
  relay.watch = std::move(*made);
  relays_.emplace(relay.number, std::move(begun));
  attach(relay, how);
  return {};
}

void SocketRelays::attach(const Relay& relay, SocketAttach::How how) {
  SocketAttach attach;
  attach.how = how;
  attach.home = relay.id;
  attach.relay = relay.number;
  node_.messenger.request(relay.home, attach, {},
                          [this, number = relay.number](Result<std::string> attached) {
                            if (!attached) return close(number);
                            auto found = relays_.find(number);
                            if (found == relays_.end()) return;
                            if (std::exchange(found->second->waits, false)) pump(number);
                          });
}

std::optional<SocketRelays::Source> SocketRelays::take_back(int accepted, std::string& came) {
  for (auto entry = relays_.begin(); entry != relays_.end(); ++entry) {
    Relay& relay = *entry->second;
    if (!is_peer(relay.local.get(), accepted)) continue;
    came += relay.to_body;
    if (relay.piece) relay.piece->ok();
    const Source source{relay.home, relay.id};
    relays_.erase(entry);
    return source;
  }
  return std::nullopt;
}

std::optional<uint64_t> SocketRelays::find(int body_end) const {
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(body_end, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM)
    return std::nullopt;
  const Relay* relay = find_by_end(body_end);
  return relay && !relay->waits ? std::optional(relay->number) : std::nullopt;
}

void SocketRelays::pause(const std::vector<uint64_t>& numbers, std::function<void()> done) {
  auto all_paused = std::shared_ptr<void>(nullptr, [done = std::move(done)](void*) { done(); });
  for (const uint64_t number : numbers) {
    Relay& relay = *relays_.at(number);
    relay.paused = true;
    SocketPause pause;
    pause.home = relay.id;
    pause.relay = number;
    node_.messenger.request(relay.home, pause, {},
                            [this, number, all_paused](Result<std::string> paused) {
                              if (!paused) resume(number);  // which closes it
                            });
  }
}

void SocketRelays::resume(uint64_t number) {
  auto found = relays_.find(number);
  if (found == relays_.end() || !found->second->paused) return;
  found->second->paused = false;
  attach(*found->second, SocketAttach::kResumes);
  pump(number);
}

std::optional<SocketRelays::Carried> SocketRelays::carried(uint64_t number, int body_end) const {
  auto found = relays_.find(number);
  if (found == relays_.end() || !found->second->paused) return std::nullopt;
  const Relay& relay = *found->second;
  const int local = relay.local.get();
  pollfd state{local, POLLRDHUP, 0};
  ::poll(&state, 1, 0);
  const bool body_ended = (state.revents & POLLRDHUP) != 0;
  // Over TCP the end of the body's writing looks like that of its last descriptor.
  if ((state.revents & (POLLERR | POLLHUP)) || (body_ended && !relay.tells_unread))
    return std::nullopt;
  if (!relay.tells_unread && (is_on_the_way(local) || is_on_the_way(body_end))) return std::nullopt;
  if (relay.unpacking || !relay.passed.empty()) return std::nullopt;
  auto came = unread_of(body_end), wrote = unread_of(local);
  if (!came || !wrote) return std::nullopt;
  Carried all{relay.home, relay.id, {}, *came + relay.to_body, relay.to_home + *wrote};
  all.sizes.came = all.came.size();
  all.sizes.wrote = all.wrote.size();
  all.sizes.arrived = relay.arrived;
  all.sizes.home_ended = relay.home_ended;
  all.sizes.body_ended = body_ended;
  all.sizes.end_is_sent = relay.ended;
  all.passes_fds = relay.passes_fds;
  return all;
}

// Closed by all: who takes over goes on.
void SocketRelays::leave_if_moved(Relay& relay) {
  pollfd state{relay.local.get(), POLLRDHUP, 0};
  ::poll(&state, 1, 0);
  const int closed = relay.tells_unread ? POLLHUP : POLLHUP | POLLRDHUP;
  if (!(state.revents & closed)) return;
  SocketLeave leave;
  leave.home = relay.id;
  leave.relay = relay.number;
  if (!node_.messenger.send(relay.home, leave))
    log_debug("sockets", "n{} is gone", relay.home.value);
  close(relay.number);
}

void SocketRelays::pump(uint64_t number) {
  auto found = relays_.find(number);
  if (found == relays_.end()) return;
  if (found->second->paused) return leave_if_moved(*found->second);
  pump_to_body(*found->second);
  pump_to_home(*found->second);  // last: it may end the relay
}

void SocketRelays::pump_to_home(Relay& relay) {
  if (relay.sending || holders_ > 0 || relay.paused || relay.waits) return;
  if (!relay.to_home.empty()) {
    const std::string piece = relay.to_home.substr(0, kMaxSocketPieceBytes);
    relay.to_home.erase(0, piece.size());
    return send_home(relay, false, piece);
  }
  if (relay.ended) return end_if_closed(relay);
  buffer_.resize(kMaxSocketPieceBytes);
  SocketPiece piece = relay.passes_fds ? take_piece(relay.local.get(), buffer_)
                                       : take_plain_piece(relay.local.get(), buffer_);
  if (piece.bytes < 0 && piece.error == EAGAIN) {
    for (auto& done : std::exchange(relay.drained, {})) done();
    return;
  }
  const ssize_t bytes = piece.bytes;
  if (bytes > 0) {
    auto passed = pack_passed(passing_, std::move(piece));
    if (passed)
      return send_home(relay, false,
                       std::string_view(buffer_).substr(0, static_cast<size_t>(bytes)),
                       std::move(*passed));
    log_warn("sockets", "a connection of a body is cut off: {}", passed.error().message());
  }
  pollfd hangup{relay.local.get(), 0, 0};
  ::poll(&hangup, 1, 0);
  const bool closed = bytes != 0 || (hangup.revents & (POLLHUP | POLLERR));
  if (closed) return close(relay.number);
  relay.ended = true;
  send_home(relay, true, {});
}

// Both directions have ended: the body has closed its socket, or may as well.
void SocketRelays::end_if_closed(Relay& relay) {
  for (auto& done : std::exchange(relay.drained, {})) done();
  pollfd hangup{relay.local.get(), 0, 0};
  ::poll(&hangup, 1, 0);
  if ((hangup.revents & (POLLHUP | POLLERR)) && !relay.piece) close(relay.number);
}

void SocketRelays::send_home(Relay& relay, bool is_end, std::string_view data, std::string passed) {
  relay.sending = true;
  settle_offsets_();
  SocketToHome piece;
  piece.home = relay.id;
  piece.is_end = is_end;
  piece.passed_bytes = static_cast<uint32_t>(passed.size());
  node_.messenger.request(relay.home, piece,
                          passed.empty() ? data : std::string_view(std::string(data) + passed),
                          [this, number = relay.number, passed](Result<std::string> taken) {
                            if (!taken && !passed.empty()) passing_.cancel(passed);
                            auto found = relays_.find(number);
                            if (found == relays_.end()) return;
                            Relay& relay = *found->second;
                            relay.sending = false;
                            if (taken || relay.paused) return pump_to_home(relay);
                            if (!relay.tells_unread) return close(number);
                            shutdown(relay.local.get(), SHUT_RD);  // its writes get EPIPE
                            relay.ended = true;
                            end_if_closed(relay);
                          });
}

void SocketRelays::pump_to_body(Relay& relay) {
  auto answer = [&](int number) {
    auto piece = std::exchange(relay.piece, std::nullopt);
    if (!piece) return;
    number != 0 ? piece->fail(number) : piece->ok();
  };
  if (relay.unpacking) return;
  while (!relay.to_body.empty()) {
    const bool passes = relay.passed_at == 0;
    const size_t most = relay.passed.empty() || passes ? relay.to_body.size() : relay.passed_at;
    const ssize_t put =
        send_piece(relay.local.get(), std::string_view(relay.to_body).substr(0, most),
                   passes ? std::span<const UniqueFd>(relay.passed) : std::span<const UniqueFd>());
    if (put < 0 && errno == EAGAIN) return;
    if (put < 0) {
      relay.to_body.clear();
      relay.passed.clear();
      return answer(EPIPE);
    }
    if (passes)
      relay.passed.clear();
    else
      relay.passed_at -= std::min(static_cast<size_t>(put), relay.passed_at);
    relay.to_body.erase(0, static_cast<size_t>(put));
  }
  // Once: it wakes our own watch.
  if (relay.home_ended && !std::exchange(relay.told_end, true))
    shutdown(relay.local.get(), SHUT_WR);
  if (!relay.piece) return;
  // A peer that closed with unread data leaves ECONNRESET behind.
  if (relay.tells_unread && is_unread(relay.local.get())) return;
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(relay.local.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  answer(error == 0 ? 0 : EPIPE);
}

void SocketRelays::drain(pid_t body, std::function<void()> done) {
  auto all_drained = std::shared_ptr<void>(nullptr, [done = std::move(done)](void*) { done(); });
  std::vector<uint64_t> numbers;
  for (auto& [number, relay] : relays_)
    if (relay->body == body && !relay->paused &&
        (!relay->ended || relay->sending || !relay->to_home.empty()))
      numbers.push_back(number);
  for (uint64_t number : numbers) {
    relays_.at(number)->drained.push_back([all_drained] {});
    pump_to_home(*relays_.at(number));
  }
}

void SocketRelays::close(uint64_t number) {
  auto found = relays_.find(number);
  if (found == relays_.end()) return;
  auto ended = std::move(found->second);  // it may be in its own callback
  relays_.erase(found);
  // Closed over unread data, it would give the body ECONNRESET in place of EPIPE.
  buffer_.resize(kMaxSocketPieceBytes);
  while (recv(ended->local.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT) > 0) continue;
  StreamClose message;
  message.home = ended->id;
  if (!node_.messenger.send(ended->home, message))
    log_debug("sockets", "n{} is gone", ended->home.value);
}

// ---- for checkpoints ----

const SocketRelays::Relay* SocketRelays::find_by_end(int end) const {
  struct stat attributes {};
  sockaddr_storage peer{};
  socklen_t peer_bytes = sizeof peer;
  if (fstat(end, &attributes) != 0 ||
      getpeername(end, reinterpret_cast<sockaddr*>(&peer), &peer_bytes) != 0)
    return nullptr;
  ino_t peer_inode = 0;
  if (peer.ss_family == AF_UNIX)
    if (auto facts = unix_socket_facts(attributes.st_ino)) peer_inode = facts->peer;
  for (const auto& [number, relay] : relays_) {
    struct stat local {};
    sockaddr_storage own{};
    socklen_t own_bytes = sizeof own;
    if (relay->tells_unread) {
      if (peer_inode != 0 && fstat(relay->local.get(), &local) == 0 && local.st_ino == peer_inode)
        return relay.get();
    } else if (peer.ss_family != AF_UNIX) {
      getsockname(relay->local.get(), reinterpret_cast<sockaddr*>(&own), &own_bytes);
      if (own_bytes == peer_bytes && memcmp(&own, &peer, own_bytes) == 0) return relay.get();
    }
  }
  return nullptr;
}

Result<std::optional<SocketRelays::Described>> SocketRelays::describe(int end) const {
  std::optional<Described> none;
  const Relay* relay = relays_.empty() ? nullptr : find_by_end(end);
  if (relay == nullptr) return none;
  if (relay->unpacking || !relay->passed.empty())
    return errno_error("descriptors that a socket of another node passes are on their way", EAGAIN);
  if (!relay->tells_unread && (unacknowledged(end) > 0 || unacknowledged(relay->local.get()) > 0))
    return errno_error("what a socket of another node has sent is on its way", EAGAIN);
  int domain = 0, type = 0;
  socklen_t size = sizeof domain;
  getsockopt(end, SOL_SOCKET, SO_DOMAIN, &domain, &size);
  getsockopt(end, SOL_SOCKET, SO_TYPE, &type, &size);
  auto unread = peek_socket(end, domain, type);
  if (!unread) return unread.error();
  auto unsent = peek_socket(relay->local.get(), domain, type);
  if (!unsent) return unsent.error();
  Described described{relay->home, relay->id, relay->arrived, std::move(*unread),
                      relay->to_home + *unsent};
  if (const auto bytes = static_cast<uint32_t>(relay->to_body.size()); bytes > 0) {
    if (type != SOCK_STREAM)
      described.unread.append(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    described.unread += relay->to_body;
  }
  return std::optional(std::move(described));
}

std::shared_ptr<void> SocketRelays::hold() {
  ++holders_;
  return {nullptr, [self = self_](void*) {
            if (*self) (*self)->release();
          }};
}

void SocketRelays::release() {
  if (--holders_ > 0) return;
  std::vector<uint64_t> numbers;
  for (const auto& [number, relay] : relays_) numbers.push_back(number);
  for (uint64_t number : numbers) pump(number);
}

}  // namespace krg
