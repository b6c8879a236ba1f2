// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/socket_state.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "family/socket_options.h"
#include "family/unix_sockets.h"
#include "krg/runtime/unix_socket.h"
#include "socket_option.h"

namespace krg {
namespace {

constexpr size_t kMostPacket = 256 * 1024;

using GetName = int (*)(int, sockaddr*, socklen_t*);

std::optional<std::string> name_of(int fd, GetName get) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  if (get(fd, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return std::nullopt;
  return std::string(reinterpret_cast<const char*>(&address),
                     std::min<size_t>(bytes, sizeof address));
}

Error not_kept(std::string_view why) {
  return errno_error(std::string(why), ENOTSUP);
}

// ---- contents ----

// Sockets that look as they read go on where they were looked at last (SO_PEEK_OFF, socket(7)).
class PeekOffset {
 public:
  explicit PeekOffset(int fd) : fd_(fd), before_(socket_option(fd, SOL_SOCKET, SO_PEEK_OFF)) {
    const int begin = 0;
    works_ = setsockopt(fd_, SOL_SOCKET, SO_PEEK_OFF, &begin, sizeof begin) == 0;
  }
  ~PeekOffset() { setsockopt(fd_, SOL_SOCKET, SO_PEEK_OFF, &before_, sizeof before_); }
  PeekOffset(const PeekOffset&) = delete;
  PeekOffset& operator=(const PeekOffset&) = delete;
  bool works() const { return works_; }

 private:
  int fd_, before_;
  bool works_;
};

// Descriptors that come along are closed: they are looked at, not taken.
bool drop_descriptors(msghdr& message) {
  return !received_fds(message).empty() || (message.msg_flags & MSG_CTRUNC) != 0;
}

// Nothing comes any more, by shutdown(2).
bool has_read_all(int fd) {
  pollfd polled{fd, POLLRDHUP, 0};
  return poll(&polled, 1, 0) == 1 && (polled.revents & POLLRDHUP) != 0;
}

// Of a stream no more than it has to read is looked for: whoever looks further takes the error that
// waits for the program (ECONNRESET). None: it does not tell, or has no other end.
bool has_more(int fd, int type, size_t seen) {
  int all = 0;
  if (type != SOCK_STREAM) return true;
  return ioctl(fd, FIONREAD, &all) == 0 && static_cast<size_t>(std::max(all, 0)) > seen;
}

Result<std::string> peek_unix(int fd, int type) {
  PeekOffset offset(fd);
  if (!offset.works()) return errno_error("SO_PEEK_OFF of a unix socket");
  std::string all, buffer(kMostPacket, '\0');
  while (has_more(fd, type, all.size())) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(sizeof(int))];
    iovec part{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    // Packets in order: it has no other end, or that has been closed before it had read all.
    if (got < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == ECONNRESET)) return all;
    if (got < 0) return errno_error("what a socket has to read");
    if (drop_descriptors(message)) return not_kept("descriptors in flight");
    if (message.msg_flags & MSG_TRUNC) return not_kept("a packet of more than 256 KiB");
    // Of packets in order, an empty one is taken for the end.
    if (got == 0 && (type != SOCK_DGRAM || has_read_all(fd))) return all;
    const auto bytes = static_cast<uint32_t>(got);
    if (type != SOCK_STREAM) all.append(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    all.append(buffer, 0, bytes);
  }
  return all;
}

Result<std::string> peek_tcp(int fd) {
  int waiting = 0;
  if (ioctl(fd, FIONREAD, &waiting) != 0) return errno_error("FIONREAD of a socket");
  std::string bytes(static_cast<size_t>(std::max(waiting, 0)), '\0');
  if (waiting <= 0) return bytes;
  const ssize_t got = recv(fd, bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
  if (got < 0) return errno_error("what a socket has to read");
  if (got < waiting) return not_kept("urgent data in flight");
  return bytes;
}

// ---- TCP ----

// A socket in repair mode tells its sequence numbers and what it has sent; SO_REUSEADDR is lost.
class TcpRepair {
 public:
  explicit TcpRepair(int fd) : fd_(fd), reuse_(socket_option(fd, SOL_SOCKET, SO_REUSEADDR)) {
    const int on = TCP_REPAIR_ON;
    works_ = setsockopt(fd_, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on) == 0;
  }
  ~TcpRepair() {
    if (!works_) return;
    const int off = TCP_REPAIR_OFF_NO_WP;
    setsockopt(fd_, IPPROTO_TCP, TCP_REPAIR, &off, sizeof off);
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &reuse_, sizeof reuse_);
  }
  TcpRepair(const TcpRepair&) = delete;
  TcpRepair& operator=(const TcpRepair&) = delete;
  bool works() const { return works_; }

  uint32_t sequence(int queue) const {
    setsockopt(fd_, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof queue);
    return static_cast<uint32_t>(socket_option(fd_, IPPROTO_TCP, TCP_QUEUE_SEQ));
  }
  // REQUIRES: sequence(TCP_SEND_QUEUE) was the last.
  Result<std::string> sent(int bytes) const {
    std::string queue(static_cast<size_t>(bytes), '\0');
    const ssize_t got = recv(fd_, queue.data(), queue.size(), MSG_PEEK | MSG_DONTWAIT);
    if (got < 0) return errno_error("what a socket has sent");
    queue.resize(static_cast<size_t>(got));
    return queue;
  }

 private:
  int fd_, reuse_;
  bool works_;
};

Status take_tcp_output(int fd, SocketState& state) {
  FamilySocket& socket = state.socket;
  SocketIdentity& identity = state.identity;
  const bool has_ended = (socket.ended & FamilySocket::kEndedWriting) != 0;
  const int left = unacknowledged(fd);
  TcpRepair repair(fd);
  if (!repair.works()) {
    // The end itself counts for one.
    if (left <= (has_ended ? 1 : 0)) return {};
    return errno_error("has sent what has not arrived yet", EAGAIN);
  }
  identity.has_sequence = 1;
  identity.received =
      repair.sequence(TCP_RECV_QUEUE) - ((socket.ended & FamilySocket::kEndedReading) != 0 ? 1 : 0);
  identity.written = repair.sequence(TCP_SEND_QUEUE) - (has_ended ? 1 : 0);
  if (left > 0) {
    auto sent = repair.sent(left);
    if (!sent) return sent.error();
    identity.queued = static_cast<uint32_t>(sent->size());
    socket.unsent = std::move(*sent);
  }
  return {};
}

Status take_tcp_state(int fd, SocketState& state) {
  FamilySocket& socket = state.socket;
  tcp_info info{};
  socklen_t bytes = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) return errno_error("TCP_INFO");
  constexpr uint32_t kReading = FamilySocket::kEndedReading, kWriting = FamilySocket::kEndedWriting;
  socket.state = FamilySocket::State::kConnected;
  // States as net/tcp_states.h numbers them.
  switch (info.tcpi_state) {
    case 1:  // established
      return {};
    case 4:  // FIN_WAIT1
    case 5:  // FIN_WAIT2
      socket.ended = kWriting;
      return {};
    case 8:  // CLOSE_WAIT
      socket.ended = kReading;
      return {};
    case 9:   // LAST_ACK
    case 11:  // CLOSING
    case 6:   // TIME_WAIT
      socket.ended = kReading | kWriting;
      return {};
    case 7:  // closed, or never opened
      if (info.tcpi_segs_in > 0)
        socket.ended = kReading | kWriting;
      else
        socket.state = FamilySocket::State::kUnconnected;
      return {};
    default:
      return errno_error("is being connected", EAGAIN);
  }
}

Status take_listening(int fd, SocketState& state) {
  FamilySocket& socket = state.socket;
  socket.state = FamilySocket::State::kListening;
  uint32_t waiting = 0;
  if (socket.domain == AF_UNIX) {
    auto facts = unix_socket_facts(static_cast<ino_t>(state.identity.inode));
    if (!facts) return facts.error();
    waiting = facts->waiting;
    socket.backlog = facts->backlog;
  } else {
    tcp_info info{};
    socklen_t bytes = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) return errno_error("TCP_INFO");
    waiting = info.tcpi_unacked;
    socket.backlog = static_cast<int32_t>(info.tcpi_sacked);
  }
  if (waiting > 0) return errno_error("has connections that wait to be accepted", EAGAIN);
  return {};
}

Status take_unix(int fd, SocketState& state) {
  FamilySocket& socket = state.socket;
  auto facts = unix_socket_facts(static_cast<ino_t>(state.identity.inode));
  if (!facts) return facts.error();
  state.identity.peer_inode = facts->peer;
  const bool is_connected =
      socket.type == SOCK_DGRAM ? facts->peer != 0 : !socket.peer_name.empty();
  socket.state = is_connected ? FamilySocket::State::kConnected : FamilySocket::State::kUnconnected;
  socket.ended = facts->ended;
  auto contents = peek_socket(fd, socket.domain, socket.type);
  if (!contents) return contents.error();
  if (!is_connected && !contents->empty()) return not_kept("packets in flight");
  socket.contents = std::move(*contents);
  return {};
}

Status take_internet(int fd, SocketState& state) {
  FamilySocket& socket = state.socket;
  if (socket.protocol != IPPROTO_TCP) return {};  // packets may be lost: UDP
  if (auto taken = take_tcp_state(fd, state); !taken) return taken;
  if (socket.state != FamilySocket::State::kConnected) return {};
  auto contents = peek_tcp(fd);
  if (!contents) return contents.error();
  socket.contents = std::move(*contents);
  if (socket.peer_name.empty()) return {};  // closed both ways
  return take_tcp_output(fd, state);
}

// As much of the front as has been read elsewhere.
void skip_input(FamilySocket& socket, uint64_t bytes) {
  std::string& contents = socket.contents;
  if (socket.type == SOCK_STREAM) {
    contents.erase(0, std::min<size_t>(bytes, contents.size()));
    return;
  }
  uint32_t packet;
  while (bytes > 0 && contents.size() >= sizeof packet) {
    memcpy(&packet, contents.data(), sizeof packet);
    contents.erase(0, sizeof packet + packet);
    bytes -= std::min<uint64_t>(bytes, packet);
  }
}

}  // namespace

int unacknowledged(int fd) {
  int bytes = 0;
  return ioctl(fd, SIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

Result<std::string> peek_socket(int fd, int domain, int type) {
  return domain == AF_UNIX ? peek_unix(fd, type) : peek_tcp(fd);
}

Result<SocketState> SocketState::take(int fd, const SocketRelay& relay) {
  SocketState state;
  FamilySocket& socket = state.socket;
  struct stat attributes {};
  if (fstat(fd, &attributes) != 0) return errno_error("a socket");
  state.identity.inode = attributes.st_ino;
  socket.domain = socket_option(fd, SOL_SOCKET, SO_DOMAIN);
  socket.type = socket_option(fd, SOL_SOCKET, SO_TYPE);
  socket.protocol = socket_option(fd, SOL_SOCKET, SO_PROTOCOL);
  const bool is_internet = socket.domain == AF_INET || socket.domain == AF_INET6;
  const bool is_known = is_internet
                            ? socket.protocol == IPPROTO_TCP || (socket.protocol == IPPROTO_UDP)
                            : socket.domain == AF_UNIX;
  if (!is_known) return not_kept("neither unix, TCP nor UDP");
  socket.name = name_of(fd, getsockname).value_or(std::string());
  socket.peer_name = name_of(fd, getpeername).value_or(std::string());
  socket.options = socket_options(fd, socket.domain, socket.protocol);
  Status taken = socket_option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1 ? take_listening(fd, state)
                 : is_internet                                     ? take_internet(fd, state)
                                                                   : take_unix(fd, state);
  if (!taken) return taken.error();
  skip_input(socket, relay.skip);
  socket.contents.insert(0, relay.came);
  socket.unsent += relay.output;
  socket.unsent_bytes = static_cast<uint32_t>(socket.unsent.size());
  return state;
}

}  // namespace krg
