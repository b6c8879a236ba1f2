// SPDX-License-Identifier: GPL-2.0-or-later
#include "home_socket.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <optional>

namespace krg {

struct HomeSocket::State : std::enable_shared_from_this<State> {
  NodeContext& node;
  int fd;
  NodeId body_node;
  uint64_t relay = 0;
  bool pushing = false;  // a piece is under way to the body
  bool ended = false;    // nothing more goes there
  std::string came;      // before what the socket has now
  uint64_t consumed = 0;
  std::string buffer, unwritten;
  std::optional<Messenger::Reply> writer;
  EventLoop::Watch watch;

  State(NodeContext& context, int socket) : node(context), fd(socket) {}

  void push_input();
  void push(bool is_end, size_t bytes);
  void consume(size_t bytes);
  void write_output();
};

HomeSocket::HomeSocket(NodeContext& node, UniqueFd real, std::string came)
    : RelayedHomeFile(std::move(real)), state_(std::make_shared<State>(node, HomeFile::real())) {
  state_->came = std::move(came);
}

HomeSocket::~HomeSocket() {
  state_->watch.reset();  // before the descriptor is closed, whoever still holds the state
}

void HomeSocket::attach(NodeId body_node, uint64_t relay) {
  state_->body_node = body_node;
  state_->relay = relay;
  // Edge-triggered: unread input stays on the socket, and must not wake us again.
  auto made = state_->node.loop.watch(real(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                      [state = state_.get()](uint32_t) {
                                        auto keep = state->shared_from_this();
                                        state->write_output();
                                        state->push_input();
                                      });
  check(made.has_value(), "a socket can be watched");
  state_->watch = std::move(*made);
  state_->push_input();
}

void HomeSocket::State::push_input() {
  if (pushing || ended || !watch) return;
  if (!came.empty()) {
    buffer = came.substr(0, kMaxSocketPieceBytes);
    return push(false, buffer.size());
  }
  buffer.resize(kMaxSocketPieceBytes);
  iovec part{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  const ssize_t got = recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  // A packet too large for us, or passed descriptors, cannot be had elsewhere: the body sees the
  // end rather than something else than was sent.
  const bool unfit = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
  if (got <= 0 || unfit) return push(true, 0);
  push(false, static_cast<size_t>(got));
}

void HomeSocket::State::push(bool is_end, size_t bytes) {
  pushing = true;
  ended = is_end;
  SocketToBody piece;
  piece.relay = relay;
  piece.is_end = is_end;
  node.messenger.request(body_node, piece, std::string_view(buffer).substr(0, bytes),
                         [weak = weak_from_this(), bytes](Result<std::string> arrived) {
                           auto self = weak.lock();
                           if (!self || !self->watch) return;
                           self->pushing = false;
                           if (!arrived) {
                             self->ended = true;
                             return;
                           }
                           self->consume(bytes);
                           self->push_input();
                         });
}

void HomeSocket::State::consume(size_t bytes) {
  consumed += bytes;
  if (!came.empty()) {
    came.erase(0, bytes);
    return;
  }
  while (bytes > 0) {
    const ssize_t got = recv(fd, buffer.data(), std::min(bytes, buffer.size()), MSG_DONTWAIT);
    if (got <= 0) return;
    bytes -= static_cast<size_t>(got);
  }
}

uint64_t HomeSocket::consumed() const {
  return state_->consumed;
}

const std::string& HomeSocket::came() const {
  return state_->came;
}

std::string HomeSocket::unwritten() const {
  int type = 0;
  socklen_t size = sizeof type;
  getsockopt(real(), SOL_SOCKET, SO_TYPE, &type, &size);
  if (type == SOCK_STREAM || state_->unwritten.empty()) return state_->unwritten;
  const auto bytes = static_cast<uint32_t>(state_->unwritten.size());
  return std::string(reinterpret_cast<const char*>(&bytes), sizeof bytes) + state_->unwritten;
}

void HomeSocket::take(const SocketToHome& message, std::string_view data, Messenger::Reply reply) {
  if (message.is_end) {
    shutdown(real(), SHUT_WR);
    return reply.ok();
  }
  state_->unwritten = data;
  state_->writer.emplace(std::move(reply));
  state_->write_output();
}

void HomeSocket::State::write_output() {
  if (!writer) return;
  while (!unwritten.empty()) {
    const ssize_t put = send(fd, unwritten.data(), unwritten.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put < 0 && errno == EAGAIN) return;
    if (put < 0) {
      auto failed = std::exchange(writer, std::nullopt);
      return failed->fail(errno);
    }
    unwritten.erase(0, static_cast<size_t>(put));
  }
  auto done = std::exchange(writer, std::nullopt);
  done->ok();
}

}  // namespace krg
