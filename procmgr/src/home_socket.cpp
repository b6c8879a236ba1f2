// SPDX-License-Identifier: GPL-2.0-or-later
#include "home_socket.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>

#include "in_worker.h"
#include "krg/runtime/log.h"
#include "krg/runtime/run_after.h"
#include "socket_users.h"

namespace krg {

namespace {

using Clock = std::chrono::steady_clock;

// So soon, then ever later, who has not waited for anything is asked again.
constexpr std::chrono::milliseconds kShortestPatience{5}, kLongestPatience{80};
// After so long with nobody who waits, what has come goes to one who has read before.
constexpr std::chrono::milliseconds kUrgent{100};

}  // namespace

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
  // Where others may read it, too.
  std::shared_ptr<SocketTurn> turn;
  uint64_t member = 0;
  bool others_here = false;  // processes of this node
  bool asking = false;       // whether the body waits for something
  bool has_read = false;     // the body, what was sent to it
  bool is_taken = false;     // the packet under way is off the socket
  bool may_be_kept = false;  // it passes no descriptors
  Clock::time_point not_before{}, asked_since = Clock::time_point::max();
  std::chrono::milliseconds patience = kShortestPatience;
  EventLoop::Watch watch;

  State(NodeContext& context, FdPassing& passes, int socket)
      : node(context), passing(passes), fd(socket), of_packets(is_of_packets(socket)) {}

  void watch_socket();
  void take_over();
  void push_input();
  void push_if_wanted();
  void ask();
  void on_asked(const Result<std::string>& reply);
  void push_next(bool takes_packets);
  void keep_taken();
  void pass_on();
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
  if (!state_->turn) return;
  if (state_->pushing) state_->keep_taken();
  std::exchange(state_->turn, nullptr)->leave(state_->member);
}

void HomeSocket::share(SocketTurns& turns) {
  state_->turn = turns.of(real());
  state_->member = state_->turn->join([state = state_.get()] { state->push_input(); });
  state_->others_here = state_->of_packets;
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
  if ((state.pushing && state.is_taken) || !state.paused || !state.came.empty() ||
      !state.outputs.empty() || !carried.wrote.empty())
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
  if (pushing || ended || paused || asking || !watch) return;
  if (!turn) return push_next(false);
  if (Clock::now() < not_before || !turn->take(member)) return;
  turn->is_shared() || others_here ? push_if_wanted() : push_next(false);
}

// Where somebody else might read it as well.
void HomeSocket::State::push_if_wanted() {
  char first;
  const ssize_t waits = recv(fd, &first, sizeof first, MSG_PEEK | MSG_DONTWAIT);
  const bool is_nothing = waits < 0 && (errno == EAGAIN || errno == EINTR);
  if (turn->kept().empty() && (waits < 0 || (waits == 0 && is_end(fd))))
    return is_nothing ? turn->release(member) : push_next(false);
  asked_since = std::min(asked_since, Clock::now());
  asking = true;
  if (turn->is_shared()) return ask();
  struct stat attributes {};
  fstat(fd, &attributes);
  in_worker(
      node.workers, [inode = attributes.st_ino] { return find_user(inode) != 0; },
      [weak = weak_from_this()](bool others) {
        auto self = weak.lock();
        if (!self || !self->turn) return;
        self->others_here = others;
        if (others || self->turn->is_shared()) return self->ask();
        self->asking = false;
        self->push_input();
      });
}

void HomeSocket::State::ask() {
  SocketAsk question;
  question.relay = relay;
  question.is_urgent = has_read && Clock::now() - asked_since > kUrgent ? 1 : 0;
  node.messenger.request(body_node, question, {},
                         [weak = weak_from_this(), number = relays](Result<std::string> reply) {
                           auto self = weak.lock();
                           if (!self || !self->turn) return;
                           self->asking = false;
                           if (self->relays != number || self->paused || !self->watch)
                             return self->pass_on();
                           self->on_asked(reply);
                         });
}

void HomeSocket::State::on_asked(const Result<std::string>& reply) {
  if (reply) {
    patience = kShortestPatience;
    asked_since = Clock::time_point::max();
    return push_next(of_packets);
  }
  not_before = Clock::now() + patience;
  run_after(node.loop, patience, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->push_input();
  });
  patience = std::min(patience * 2, kLongestPatience);
  pass_on();
}

void HomeSocket::State::pass_on() {
  turn ? turn->pass_on(member) : push_input();
}

// Somebody else may have it.
void HomeSocket::State::keep_taken() {
  if (!std::exchange(is_taken, false) || !may_be_kept) return;
  consumed -= pushed;
  turn->kept().push_front(buffer.substr(0, pushed));
}

// `takes_packets`: off the socket, since others might read them while they are under way.
void HomeSocket::State::push_next(bool takes_packets) {
  if (!came.empty()) {
    buffer = came.substr(0, kMaxSocketPieceBytes);
    return push(false, buffer.size());
  }
  if (turn && !turn->kept().empty()) {
    buffer = std::move(turn->kept().front());
    turn->kept().pop_front();
    is_taken = true;
    const size_t bytes = buffer.size();
    buffer.resize(kMaxSocketPieceBytes);
    return push(false, bytes);
  }
  buffer.resize(kMaxSocketPieceBytes);
  SocketPiece piece = takes_packets ? take_packet(fd, buffer) : peek_piece(fd, buffer);
  // That somebody has gone whom a datagram was sent to.
  for (int tries = 0; tries < 2 && of_packets && piece.error == ECONNRESET; ++tries)
    piece = peek_piece(fd, buffer);
  if (piece.bytes < 0 && (piece.error == EAGAIN || piece.error == EINTR))
    return turn ? turn->release(member) : void();
  if (piece.bytes < 0 || (piece.bytes == 0 && is_end(fd))) return push(true, 0);
  const auto bytes = static_cast<size_t>(piece.bytes);
  is_taken = takes_packets;
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
  if (is_taken) consumed += bytes;
  may_be_kept = passed.empty();
  SocketToBody piece;
  piece.relay = relay;
  piece.is_end = is_end;
  piece.is_shared = turn && !of_packets ? 1 : 0;
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
          if (self->turn) self->keep_taken();
        } else {
          uint64_t left = 0;
          if (arrived->size() == sizeof left) std::memcpy(&left, arrived->data(), sizeof left);
          self->has_read |= left < self->pushed;
          self->consume(self->pushed - std::min<size_t>(left, self->pushed));
        }
        self->pass_on();
      });
}

void HomeSocket::State::consume(size_t bytes) {
  if (!is_taken) consumed += bytes;
  if (!came.empty()) {
    came.erase(0, bytes);
    return;
  }
  if (of_packets) {
    if (ended || std::exchange(is_taken, false)) return;
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
