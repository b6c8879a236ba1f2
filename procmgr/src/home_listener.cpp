// SPDX-License-Identifier: GPL-2.0-or-later
#include "home_listener.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>

#include "accept_now.h"
#include "home_socket.h"
#include "krg/runtime/log.h"
#include "remote_home.h"
#include "run_after.h"

namespace krg {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kRetry{20}, kSharedRetry{10};
// After so long with nobody who waits for it, a connection goes to one who has accepted before.
constexpr std::chrono::milliseconds kUrgent{100};
// So long those that wait here do so for a process that is just moving.
constexpr std::chrono::milliseconds kRelease{500};

bool has_connection(int socket) {
  pollfd waits{socket, POLLIN, 0};
  return ::poll(&waits, 1, 0) > 0;
}

}  // namespace

struct HomeListener::State : std::enable_shared_from_this<State> {
  struct Acceptor {
    NodeId node;
    uint64_t listener = 0;
    bool operator==(const Acceptor&) const = default;
  };

  NodeContext& node;
  RemoteHome& home;
  int fd;
  std::function<void()> release;
  std::vector<Acceptor> acceptors;  // none: nothing is accepted
  bool is_shared = false;
  size_t turn = 0, refused = 0;  // whose it is; how many of them have said no
  std::optional<Clock::time_point> asked_since;
  bool is_busy = false;  // a question or an offer is under way
  bool will_retry = false;
  std::deque<HomeId> waiting;  // entries of the home that this one keeps
  EventLoop::Watch watch;

  State(NodeContext& context, RemoteHome& its_home, int socket, std::function<void()> releases)
      : node(context), home(its_home), fd(socket), release(std::move(releases)) {}

  void pump();
  void ask_next();
  void on_asked(const Acceptor& whom, const Result<std::string>& reply);
  bool accept_one();
  void offer(const Acceptor& whom);
  void on_answer(const Acceptor& whom, HomeId connection, const Result<std::string>& taken);
  void detach(const Acceptor& whom);
  void retry(std::chrono::milliseconds wait);
  void release_later();
};

HomeListener::HomeListener(NodeContext& node, RemoteHome& home, UniqueFd real,
                           std::function<void()> release)
    : RelayedHomeFile(std::move(real)),
      state_(std::make_shared<State>(node, home, HomeFile::real(), std::move(release))) {}

HomeListener::~HomeListener() {
  state_->watch.reset();
  state_->acceptors.clear();
  for (HomeId connection : std::exchange(state_->waiting, {})) state_->home.export_done(connection);
}

void HomeListener::share() {
  state_->is_shared = true;
}

void HomeListener::attach(NodeId node, uint64_t listener) {
  auto& acceptors = state_->acceptors;
  const State::Acceptor acceptor{node, listener};
  if (std::find(acceptors.begin(), acceptors.end(), acceptor) == acceptors.end())
    acceptors.push_back(acceptor);
  if (acceptors.size() > 1) share();
  if (!state_->watch) {
    // Nobody else uses the description meanwhile.
    if (!state_->is_shared) fcntl(real(), F_SETFL, fcntl(real(), F_GETFL) | O_NONBLOCK);
    auto made = state_->node.loop.watch(real(), EPOLLIN | EPOLLET,
                                        [state = state_.get()](uint32_t) { state->pump(); });
    check(made.has_value(), "a socket can be watched");
    state_->watch = std::move(*made);
  }
  state_->pump();
}

void HomeListener::detach(NodeId node, uint64_t listener) {
  state_->detach({node, listener});
}

void HomeListener::forget_node(NodeId node) {
  const auto acceptors = state_->acceptors;
  for (const State::Acceptor& one : acceptors)
    if (one.node == node) state_->detach(one);
}

bool HomeListener::is_attached() const {
  return !state_->acceptors.empty();
}

void HomeListener::take_back(HomeId connection, std::string_view came) {
  auto* socket = dynamic_cast<HomeSocket*>(state_->home.find(connection));
  if (socket == nullptr) return;
  UniqueFd copy(fcntl(socket->real(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return log_warn("sockets", "a connection is lost: out of descriptors");
  state_->waiting.push_back(state_->home.add(
      std::make_unique<HomeSocket>(state_->node, std::move(copy), std::string(came))));
  state_->acceptors.empty() ? state_->release_later() : state_->pump();
}

bool HomeListener::has_waiting() const {
  return !state_->waiting.empty();
}

std::vector<HomeId> HomeListener::release_waiting() {
  state_->acceptors.clear();
  state_->watch.reset();
  const std::deque<HomeId> waiting = std::exchange(state_->waiting, {});
  return {waiting.begin(), waiting.end()};
}

void HomeListener::State::pump() {
  if (is_busy || acceptors.empty()) return;
  if (is_shared) return ask_next();
  if (!waiting.empty() || accept_one()) offer(acceptors.front());
}

void HomeListener::State::ask_next() {
  if (waiting.empty() && !has_connection(fd)) {
    refused = 0;
    return asked_since.reset();
  }
  if (!asked_since) asked_since = Clock::now();
  const Acceptor whom = acceptors[turn++ % acceptors.size()];
  ListenerAsk question;
  question.listener = whom.listener;
  question.is_urgent = Clock::now() - *asked_since > kUrgent;
  is_busy = true;
  node.messenger.request(whom.node, question, {},
                         [weak = weak_from_this(), whom](Result<std::string> reply) {
                           if (auto self = weak.lock()) self->on_asked(whom, reply);
                         });
}

void HomeListener::State::on_asked(const Acceptor& whom, const Result<std::string>& reply) {
  is_busy = false;
  const int error = reply ? 0 : reply.error().errno_or(EIO);
  if (error == EAGAIN && ++refused >= acceptors.size()) {
    refused = 0;
    return retry(kSharedRetry);
  }
  if (error == EAGAIN) return pump();
  refused = 0;
  if (error != 0) {
    detach(whom);
    return pump();
  }
  asked_since.reset();
  if (!waiting.empty() || accept_one()) offer(whom);
}

void HomeListener::State::offer(const Acceptor& whom) {
  is_busy = true;
  ListenerOffer offered;
  offered.listener = whom.listener;
  offered.connection = waiting.front();
  node.messenger.request(
      whom.node, offered, {},
      [weak = weak_from_this(), whom, connection = waiting.front()](Result<std::string> taken) {
        if (auto self = weak.lock()) self->on_answer(whom, connection, taken);
      });
}

bool HomeListener::State::accept_one() {
  UniqueFd accepted = accept_now(fd);
  if (!accepted) {
    if (errno != EAGAIN) retry(kRetry);
    return false;
  }
  waiting.push_back(home.add(std::make_unique<HomeSocket>(node, std::move(accepted))));
  return true;
}

void HomeListener::State::on_answer(const Acceptor& whom, HomeId connection,
                                    const Result<std::string>& taken) {
  is_busy = false;
  if (!taken && taken.error().errno_or(EIO) == EAGAIN) return retry(kRetry);
  if (!taken && is_shared) {
    detach(whom);  // another one takes it
    return pump();
  }
  std::erase(waiting, connection);
  home.export_done(connection);  // who took it has a reference
  pump();
}

void HomeListener::State::detach(const Acceptor& whom) {
  std::erase(acceptors, whom);
  if (acceptors.empty() && !waiting.empty()) release_later();
}

void HomeListener::State::retry(std::chrono::milliseconds wait) {
  if (std::exchange(will_retry, true)) return;
  run_after(node.loop, wait, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->will_retry = false;
    self->pump();
  });
}

void HomeListener::State::release_later() {
  if (!is_shared) return;
  run_after(node.loop, kRelease, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (self && self->acceptors.empty() && !self->waiting.empty()) self->release();
  });
}

}  // namespace krg
