// SPDX-License-Identifier: GPL-2.0-or-later
#include "home_socket.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include "krg/runtime/log.h"

namespace krg {

struct HomeSocket::State : std::enable_shared_from_this<State> {
  NodeContext& node;
  FdPassing& passing;
  int fd;
  bool of_packets;
  NodeId body_node;
  uint64_t relay = 0;
  bool paused = false;    // the body is moving: nothing is pushed
  bool has_left = false;  // and its relay has gone
  uint64_t relays = 0;    // how many have had the socket: answers of earlier ones mean nothing
  bool pushing = false;   // a piece is under way to the body
  size_t pushed = 0;      // of that piece: what is still on the socket
  bool ended = false;     // nothing more goes there
  std::string came;       // before what the socket has now
  uint64_t consumed = 0;
  std::string buffer;
  // What the body wrote, in order.
  struct Output {
    bool is_end;
    std::string data;
    Messenger::Reply reply;
    bool is_complete = true;  // the descriptors are here that go with it
    std::vector<UniqueFd> fds = {};
    int error = 0;
  };
  std::deque<Output> outputs;
  struct Successor {
    NodeId node;
    uint64_t relay;
    Messenger::Reply reply;
  };
  std::optional<Successor> successor;  // waits for the paused relay's end
  EventLoop::Watch watch;

  State(NodeContext& context, FdPassing& passes, int socket)
      : node(context), passing(passes), fd(socket), of_packets(is_of_packets(socket)) {}

  void watch_socket();
  void take_over();
  void push_input();
  void push(bool is_end, size_t bytes, const std::string& passed = {});
  void consume(size_t bytes);
  void write_output();
};

HomeSocket::HomeSocket(NodeContext& node, FdPassing& passing, UniqueFd real, std::string came)
    : RelayedHomeFile(std::move(real)),
      state_(std::make_shared<State>(node, passing, HomeFile::real())) {
  state_->came = std::move(came);
}

HomeSocket::~HomeSocket() {
  state_->watch.reset();  // before the descriptor is closed, whoever still holds the state
}

void HomeSocket::attach(NodeId body_node, const SocketAttach& message, Messenger::Reply reply) {
  State& state = *state_;
  if (message.how == SocketAttach::kTakesOver) {
    if (!state.paused) return reply.fail(ECANCELED, "the body stays where it is");
    state.successor.emplace(State::Successor{body_node, message.relay, std::move(reply)});
    return state.take_over();
  }
  state.body_node = body_node;
  state.relay = message.relay;
  state.paused = state.has_left = false;
  reply.ok();
  if (auto unused = std::exchange(state.successor, std::nullopt))
    unused->reply.fail(ECANCELED, "the body stays where it is");
  state.watch_socket();
  state.push_input();
}

bool HomeSocket::has_been_attached() const {
  return static_cast<bool>(state_->watch);
}

void HomeSocket::pause() const {
  state_->paused = true;
}

void HomeSocket::leave(NodeId body_node, uint64_t relay) {
  State& state = *state_;
  if (!state.paused || state.body_node != body_node || state.relay != relay) return;
  state.has_left = true;
  state.take_over();
}

void HomeSocket::forget_node(NodeId node) {
  State& state = *state_;
  if (state.successor && state.successor->node == node) state.successor.reset();
  if (state.paused && state.body_node == node) leave(node, state.relay);
}

bool HomeSocket::can_be_native(const CarriedSocket& carried) const {
  const State& state = *state_;
  if (!state.paused || !state.came.empty() || !state.outputs.empty() || !carried.wrote.empty())
    return false;
  if (state.of_packets) return carried.came.size() <= (state.pushing && !state.ended ? 1 : 0);
  return carried.bytes_that_came() <= (state.pushing ? state.pushed : 0);
}

void HomeSocket::become_native(const CarriedSocket& carried) const {
  if (!state_->pushing) return;
  const size_t unread = carried.bytes_that_came();
  if (state_->of_packets && !carried.came.empty()) return;
  state_->consume(state_->pushed - unread);
  state_->pushed = unread;
}

void HomeSocket::State::watch_socket() {
  if (watch) return;
  // Edge-triggered: unread input stays on the socket, and must not wake us again.
  auto made = node.loop.watch(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, [this](uint32_t) {
    auto keep = shared_from_this();
    write_output();
    push_input();
  });
  check(made.has_value(), "a socket can be watched");
  watch = std::move(*made);
}

// The body has brought along what was under way to it.
void HomeSocket::State::take_over() {
  if (!has_left || !successor) return;
  body_node = successor->node;
  relay = successor->relay;
  paused = has_left = false;
  ++relays;
  if (std::exchange(pushing, false)) consume(pushed);
  auto next = std::exchange(successor, std::nullopt);
  next->reply.ok();
  push_input();
}

void HomeSocket::State::push_input() {
  if (pushing || ended || paused || !watch) return;
  if (!came.empty()) {
    buffer = came.substr(0, kMaxSocketPieceBytes);
    return push(false, buffer.size());
  }
  buffer.resize(kMaxSocketPieceBytes);
  SocketPiece piece = peek_piece(fd, buffer);
  // That somebody has gone whom a datagram was sent to.
  for (int tries = 0; tries < 2 && of_packets && piece.error == ECONNRESET; ++tries)
    piece = peek_piece(fd, buffer);
  if (piece.bytes < 0 && (piece.error == EAGAIN || piece.error == EINTR)) return;
  if (piece.bytes < 0 || (piece.bytes == 0 && is_end(fd))) return push(true, 0);
  const auto bytes = static_cast<size_t>(piece.bytes);
  auto passed = pack_passed(passing, std::move(piece));
  if (passed) return push(false, bytes, *passed);
  // The body sees the end rather than something else than was sent.
  log_warn("sockets", "a connection is cut off: {}", passed.error().message());
  push(true, 0);
}

void HomeSocket::State::push(bool is_end, size_t bytes, const std::string& passed) {
  pushing = true;
  pushed = bytes;
  ended = is_end;
  SocketToBody piece;
  piece.relay = relay;
  piece.is_end = is_end;
  piece.passed_bytes = static_cast<uint32_t>(passed.size());
  const std::string_view data = std::string_view(buffer).substr(0, bytes);
  node.messenger.request(
      body_node, piece, passed.empty() ? data : std::string_view(std::string(data) + passed),
      [weak = weak_from_this(), number = relays, passed](Result<std::string> arrived) {
        auto self = weak.lock();
        if (!arrived && self && !passed.empty()) self->passing.cancel(passed);
        if (!self || !self->watch || self->relays != number) return;
        if (!arrived && self->paused) return;  // who takes over has it
        self->pushing = false;
        if (!arrived) {
          self->ended = true;
          return;
        }
        self->consume(self->pushed);
        self->push_input();
      });
}

void HomeSocket::State::consume(size_t bytes) {
  consumed += bytes;
  if (!came.empty()) {
    came.erase(0, bytes);
    return;
  }
  if (of_packets) {
    if (ended) return;
    recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
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
  std::string all;
  for (const State::Output& output : state_->outputs) {
    const auto bytes = static_cast<uint32_t>(output.data.size());
    if (state_->of_packets && !output.is_end)
      all.append(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    all += output.data;
  }
  return all;
}

void HomeSocket::take(const SocketToHome& message, std::string_view payload,
                      Messenger::Reply reply) {
  const size_t bytes = payload.size() - std::min<size_t>(message.passed_bytes, payload.size());
  State& state = *state_;
  state.outputs.push_back(
      {message.is_end != 0, std::string(payload.substr(0, bytes)), std::move(reply)});
  if (bytes == payload.size()) {
    if (state.outputs.size() == 1) state.write_output();
    return;
  }
  State::Output& output = state.outputs.back();  // where it stays until it is complete
  output.is_complete = false;
  state.passing.unpack(0, payload.substr(bytes),
                       [weak = state.weak_from_this(), &output](Result<std::vector<UniqueFd>> fds) {
                         auto self = weak.lock();
                         if (!self) return;
                         output.is_complete = true;
                         if (fds)
                           output.fds = std::move(*fds);
                         else
                           output.error = fds.error().errno_or(ENOTSUP);
                         self->write_output();
                       });
}

void HomeSocket::State::write_output() {
  while (!outputs.empty()) {
    Output& first = outputs.front();
    if (!first.is_complete) return;
    int error = first.error;
    bool is_packet = of_packets && !first.is_end;  // it may be empty
    while ((!first.data.empty() || is_packet) && error == 0) {
      const ssize_t put = send_piece(fd, first.data, first.fds);
      if (put < 0 && errno == EAGAIN) return;
      if (put < 0) error = errno;
      if (put < 0) break;
      first.data.erase(0, static_cast<size_t>(put));
      first.fds.clear();
      is_packet = false;
    }
    if (first.is_end) shutdown(fd, SHUT_WR);
    Output done = std::move(first);
    outputs.pop_front();
    error == 0 ? done.reply.ok() : done.reply.fail(error);
  }
}

}  // namespace krg
