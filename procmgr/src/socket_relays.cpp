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
#include <iterator>
#include <optional>

#include "alive.h"
#include "family/socket_state.h"
#include "family/unix_sockets.h"
#include "home_socket.h"
#include "in_worker.h"
#include "krg/runtime/log.h"
#include "process_fds.h"
#include "socket_relays_impl.h"

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

// What a datagram's sender hears of a receiver that is there no more.
bool is_gone(int error) {
  return error == ECONNREFUSED || error == ENOTCONN || error == ECONNRESET || error == ESTALE;
}

int type_of(int socket) {
  int type = 0;
  socklen_t size = sizeof type;
  getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size);
  return type;
}

}  // namespace

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
  messenger.on_request<SocketAsk>(
      [this](NodeId, const SocketAsk& question, std::string_view, Messenger::Reply reply) {
        answer(question, std::move(reply));
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
    relay.to_body.push_back({std::string(payload.substr(0, bytes))});
    relay.piece.emplace(std::move(reply));
    message.is_shared ? keep_end(relay) : relay.kept_end.reset();
    if (bytes < payload.size()) return unpack(relay, relay.to_body.back(), payload.substr(bytes));
  }
  if (!relay.paused) pump_to_body(relay);
}

// A body that has not read what it has wants no more.
void SocketRelays::answer(const SocketAsk& question, Messenger::Reply reply) {
  const auto found = relays_.find(question.relay);
  if (found == relays_.end()) return reply.fail(EPIPE, "the body's socket is closed");
  if (found->second->paused || found->second->end == 0) return reply.fail(EAGAIN, "not now");
  auto later = shared(std::move(reply));
  in_worker(
      node_.workers,
      [end = found->second->end, users = found->second->users] {
        return acceptance_of(end, users, false);
      },
      [self = self_, question, later](Acceptance reading) {
        if (*self)
          (*self)->on_looked(question, std::move(reading), std::move(*later));
        else
          later->fail(EPIPE, "it is closed");
      });
}

void SocketRelays::on_looked(const SocketAsk& question, Acceptance reading,
                             Messenger::Reply reply) {
  const auto found = relays_.find(question.relay);
  if (found == relays_.end()) return reply.fail(EPIPE, "the body's socket is closed");
  found->second->users = std::move(reading.users);
  const bool wants = reading.is_awaited || question.is_urgent;
  if (found->second->paused || reading.has_connection || !wants)
    return reply.fail(EAGAIN, "not now");
  reply.ok();
}

void SocketRelays::unpack(Relay& relay, Piece& piece, std::string_view passed) {
  const uint64_t number = piece.unpacking = next_piece_++;
  passing_.unpack(relay.body, passed,
                  [this, to = relay.number, number](Result<std::vector<UniqueFd>> fds) {
                    take_passed(to, number, std::move(fds));
                  });
}

void SocketRelays::take_passed(uint64_t number, uint64_t piece, Result<std::vector<UniqueFd>> fds) {
  auto found = relays_.find(number);
  if (found == relays_.end()) return;
  Relay& relay = *found->second;
  const auto its = std::find_if(relay.to_body.begin(), relay.to_body.end(),
                                [piece](const Piece& each) { return each.unpacking == piece; });
  if (its == relay.to_body.end()) return;
  its->unpacking = 0;
  if (fds) {
    its->fds = std::move(*fds);
  } else {
    log_warn("sockets", "a connection is cut off: {}", fds.error().message());
    relay.to_body.erase(its, relay.to_body.end());
    relay.home_ended = true;
    if (auto under_way = std::exchange(relay.piece, std::nullopt)) under_way->fail(EPIPE);
  }
  if (!relay.is_unpacking()) relay.unpacked.clear();
  if (!relay.paused) pump_to_body(relay);
}

// They were packed on another node for a home that does not get them.
void SocketRelays::drop_passed(const std::string& passed) {
  if (!passed.empty()) passing_.unpack(0, passed, [](const Result<std::vector<UniqueFd>>&) {});
}

Result<UniqueFd> SocketRelays::open(pid_t body, NodeId home, HomeId id, const Shape& shape,
                                    const CarriedSocket* carried) {
  int ends[2];
  if (socketpair(AF_UNIX, shape.type | SOCK_CLOEXEC, 0, ends) != 0)
    return errno_error("socketpair");
  UniqueFd given(ends[0]);
  auto relay = std::make_unique<Relay>();
  relay->local = UniqueFd(ends[1]);
  if (const auto identity = own_fd_identity(given.get())) relay->end = identity->inode;
  relay->users.pids = {body};
  relay->body = body;
  relay->home = home;
  relay->id = id;
  relay->passes_fds = shape.passes_fds;
  if (shape.flags & O_NONBLOCK) fcntl(given.get(), F_SETFL, O_NONBLOCK);
  if (carried) {
    relay->waits = true;
    relay->to_home.assign(carried->wrote.begin(), carried->wrote.end());
    relay->arrived = carried->state.arrived;
    relay->home_ended = carried->state.home_ended != 0;
    relay->ended = carried->state.end_is_sent != 0;
    if (carried->state.body_ended) shutdown(given.get(), SHUT_WR);
  }
  Relay& begun = *relay;
  if (auto status =
          begin(std::move(relay), carried ? SocketAttach::kTakesOver : SocketAttach::kNew);
      !status)
    return status.error();
  if (!carried) {
    if (begun.is_joined_stream()) keep_first_end(begun, given.get());
    return given;
  }
  for (const CarriedPiece& piece : carried->came) {
    Piece& added = begun.to_body.emplace_back(Piece{piece.data});
    if (!piece.passed.empty()) unpack(begun, added, piece.passed);
  }
  pump_to_body(begun);
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
  relay.type = type_of(relay.local.get());
  relay.datagrams = relay.type == SOCK_DGRAM;
  // Edge-triggered: EPOLLOUT then tells each time that the body has consumed something.
  auto made = node_.loop.watch(relay.local.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                               [this, number = relay.number](uint32_t) { pump(number); });
  if (!made) return made.error();
  relay.watch = std::move(*made);
  relays_.emplace(relay.number, std::move(begun));
  attach(relay, how);
  if (relay.datagrams) await_closes();
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
    for (const Piece& piece : relay.to_body) came += piece.data;
    if (relay.piece) relay.piece->ok();
    const Source source{relay.home, relay.id};
    relays_.erase(entry);
    return source;
  }
  return std::nullopt;
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
    const CarriedPiece piece = std::move(relay.to_home.front());
    relay.to_home.pop_front();
    return send_home(relay, false, piece.data, piece.passed);
  }
  if (relay.ended) return end_if_closed(relay);
  buffer_.resize(kMaxSocketPieceBytes);
  SocketPiece piece = relay.passes_fds ? take_piece(relay.local.get(), buffer_)
                                       : take_plain_piece(relay.local.get(), buffer_);
  if (piece.bytes < 0 && piece.error == EAGAIN) {
    for (auto& done : std::exchange(relay.drained, {})) done();
    if (relay.body_closed) close(relay.number);
    return;
  }
  const ssize_t bytes = piece.bytes;
  if (bytes > 0 || (bytes == 0 && !is_end(relay.local.get()))) {
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
  node_.messenger.request(
      relay.home, piece, passed.empty() ? data : std::string_view(std::string(data) + passed),
      [this, number = relay.number, passed](Result<std::string> taken) {
        if (!taken && !passed.empty()) {
          passing_.cancel(passed);
          drop_passed(passed);
        }
        auto found = relays_.find(number);
        if (found == relays_.end()) return;
        Relay& relay = *found->second;
        relay.sending = false;
        // Datagrams: one that cannot be had is lost, and the next ones go on.
        const int error = taken ? 0 : taken.error().errno_or(EPIPE);
        const bool is_lost = relay.datagrams && error != EPIPE && !is_gone(error);
        if (taken || relay.paused || is_lost) return pump_to_home(relay);
        if (!relay.tells_unread || (relay.datagrams && is_gone(error))) return close(number);
        shutdown(relay.local.get(), SHUT_RD);  // its writes get EPIPE
        relay.ended = true;
        end_if_closed(relay);
      });
}

void SocketRelays::pump_to_body(Relay& relay) {
  auto answer = [&](int number) {
    relay.kept_end.reset();
    auto piece = std::exchange(relay.piece, std::nullopt);
    if (!piece) return;
    number != 0 ? piece->fail(number) : piece->ok();
  };
  while (!relay.to_body.empty()) {
    Piece& first = relay.to_body.front();
    if (first.unpacking) return;
    const ssize_t put = send_piece(relay.local.get(), first.data, first.fds);
    if (put < 0 && errno == EAGAIN) return;
    if (put < 0) {
      relay.to_body.clear();
      return answer(EPIPE);
    }
    first.fds.clear();
    first.data.erase(0, static_cast<size_t>(put));
    if (first.data.empty()) relay.to_body.pop_front();
  }
  // Once: it wakes our own watch.
  if (relay.home_ended && !relay.datagrams && !std::exchange(relay.told_end, true))
    shutdown(relay.local.get(), SHUT_WR);
  if (!relay.piece) return;
  // A peer that closed with unread data leaves ECONNRESET behind.
  if (relay.tells_unread && is_unread(relay.local.get())) return;
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(relay.local.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  // Who closes datagrams leaves nothing behind: what it may not have read is there for others.
  answer(error == 0 && !relay.looks_closed() ? 0 : EPIPE);
}

void SocketRelays::drain(pid_t body, std::function<void()> done) {
  auto all_drained = std::shared_ptr<void>(nullptr, [done = std::move(done)](void*) { done(); });
  std::vector<uint64_t> numbers, ends;
  for (auto& [number, relay] : relays_)
    if (relay->body == body && !relay->paused &&
        (!relay->ended || relay->sending || !relay->to_home.empty()))
      numbers.push_back(number);
  for (uint64_t number : numbers) {
    auto found = relays_.find(number);
    if (found == relays_.end()) continue;
    found->second->drained.push_back([all_drained] {});
    pump_to_home(*found->second);
  }
  for (auto& [number, relay] : relays_)
    if (relay->body == body && relay->kept_end) ends.push_back(number);
  for (uint64_t number : ends) look_for_leftovers(number, true, [all_drained] {});
}

void SocketRelays::close(uint64_t number) {
  auto found = relays_.find(number);
  if (found == relays_.end()) return;
  auto ended = std::move(found->second);  // it may be in its own callback
  relays_.erase(found);
  // Closed over unread data, it would give the body ECONNRESET in place of EPIPE.
  buffer_.resize(kMaxSocketPieceBytes);
  while (recv(ended->local.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT) > 0) continue;
  for (const CarriedPiece& piece : ended->to_home) drop_passed(piece.passed);
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
  const auto passes = [](const Piece& piece) { return piece.unpacking || !piece.fds.empty(); };
  const auto carries = [](const CarriedPiece& piece) { return !piece.passed.empty(); };
  if (std::any_of(relay->to_body.begin(), relay->to_body.end(), passes) ||
      std::any_of(relay->to_home.begin(), relay->to_home.end(), carries))
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
  const auto add = [type](std::string& all, const std::string& data) {
    const auto bytes = static_cast<uint32_t>(data.size());
    if (type != SOCK_STREAM) all.append(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    all += data;
  };
  Described described{relay->home, relay->id, relay->arrived, std::move(*unread), {}};
  for (const Piece& piece : relay->to_body) add(described.unread, piece.data);
  for (const CarriedPiece& piece : relay->to_home) add(described.unsent, piece.data);
  described.unsent += *unsent;
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
