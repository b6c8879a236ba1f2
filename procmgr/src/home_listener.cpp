// SPDX-License-Identifier: GPL-2.0-or-later
#include "home_listener.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <deque>

#include "home_socket.h"
#include "krg/runtime/log.h"
#include "remote_home.h"
#include "run_after.h"

namespace krg {
namespace {

constexpr std::chrono::milliseconds kRetry{20};

}  // namespace

struct HomeListener::State : std::enable_shared_from_this<State> {
  NodeContext& node;
  RemoteHome& home;
  int fd;
  NodeId body_node = kNoNode;  // none: nothing is accepted
  uint64_t listener = 0;
  bool offering = false;
  std::deque<HomeId> waiting;  // entries of the home that this one keeps
  EventLoop::Watch watch;

  State(NodeContext& context, RemoteHome& its_home, int socket)
      : node(context), home(its_home), fd(socket) {}

  void pump();
  bool accept_one();
  void on_answer(HomeId connection, const Result<std::string>& taken);
  void retry();
};

HomeListener::HomeListener(NodeContext& node, RemoteHome& home, UniqueFd real)
    : RelayedHomeFile(std::move(real)),
      state_(std::make_shared<State>(node, home, HomeFile::real())) {}

HomeListener::~HomeListener() {
  state_->watch.reset();
  state_->body_node = kNoNode;
  for (HomeId connection : std::exchange(state_->waiting, {})) state_->home.export_done(connection);
}

void HomeListener::attach(NodeId node, uint64_t listener) {
  state_->body_node = node;
  state_->listener = listener;
  if (!state_->watch) {
    // Nobody else uses the description meanwhile.
    fcntl(real(), F_SETFL, fcntl(real(), F_GETFL) | O_NONBLOCK);
    auto made = state_->node.loop.watch(real(), EPOLLIN | EPOLLET,
                                        [state = state_.get()](uint32_t) { state->pump(); });
    check(made.has_value(), "a socket can be watched");
    state_->watch = std::move(*made);
  }
  state_->pump();
}

void HomeListener::pause() {
  state_->body_node = kNoNode;
}

void HomeListener::take_back(HomeId connection, std::string_view came) {
  auto* socket = dynamic_cast<HomeSocket*>(state_->home.find(connection));
  if (socket == nullptr) return;
  UniqueFd copy(fcntl(socket->real(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return log_warn("sockets", "a connection is lost: out of descriptors");
  state_->waiting.push_back(state_->home.add(
      std::make_unique<HomeSocket>(state_->node, std::move(copy), std::string(came))));
  state_->pump();
}

bool HomeListener::has_waiting() const {
  return !state_->waiting.empty();
}

std::vector<HomeId> HomeListener::release_waiting() {
  state_->body_node = kNoNode;
  state_->watch.reset();
  const std::deque<HomeId> waiting = std::exchange(state_->waiting, {});
  return {waiting.begin(), waiting.end()};
}

void HomeListener::State::pump() {
  if (offering || body_node == kNoNode) return;
  if (waiting.empty() && !accept_one()) return;
  offering = true;
  ListenerOffer offer;
  offer.listener = listener;
  offer.connection = waiting.front();
  node.messenger.request(
      body_node, offer, {},
      [weak = weak_from_this(), connection = waiting.front()](Result<std::string> taken) {
        if (auto self = weak.lock()) self->on_answer(connection, taken);
      });
}

bool HomeListener::State::accept_one() {
  UniqueFd accepted(accept4(fd, nullptr, nullptr, SOCK_CLOEXEC));
  if (!accepted) {
    if (errno != EAGAIN) retry();
    return false;
  }
  waiting.push_back(home.add(std::make_unique<HomeSocket>(node, std::move(accepted))));
  return true;
}

void HomeListener::State::on_answer(HomeId connection, const Result<std::string>& taken) {
  offering = false;
  if (!taken && taken.error().errno_or(EIO) == EAGAIN) return retry();
  std::erase(waiting, connection);
  home.export_done(connection);  // who took it has a reference
  pump();
}

void HomeListener::State::retry() {
  run_after(node.loop, kRetry, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->pump();
  });
}

}  // namespace krg
