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
#include <vector>

#include "accept_now.h"
#include "home_socket.h"
#include "krg/runtime/log.h"
#include "krg/runtime/run_after.h"
#include "listener_shape.h"
#include "remote_home.h"
#include "socket_relays.h"

namespace krg {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kRetry{5}, kSharedRetry{10};
// After so long with nobody who waits for it, a connection goes to one who has accepted before.
constexpr std::chrono::milliseconds kUrgent{100};
// So long those that wait here do so for a process that is just moving.
constexpr std::chrono::milliseconds kRelease{500};
// So long they are kept for processes of this node alone, whose queue has no room for any of them.
constexpr std::chrono::seconds kKept{30};

bool has_connection(int socket) {
  pollfd waits{socket, POLLIN, 0};
  return ::poll(&waits, 1, 0) > 0;
}

}  // namespace

struct HomeListener::State : std::enable_shared_from_this<State> {
  NodeContext& node;
  RemoteHome& home;
  SocketRelays& sockets;
  int fd;
  HomeId id, guard;                   // our entry, and what keeps it while connections wait
  std::vector<ListenerPlace> places;  // none: nothing is accepted
  bool is_shared = false;
  bool is_at_home = false;  // its only process accepts by itself
  bool is_lent = false;
  pid_t process = 0;             // that one
  size_t turn = 0, refused = 0;  // whose it is; how many of them have said no
  std::optional<Clock::time_point> asked_since, kept_since;
  bool is_busy = false;           // a question or an offer is under way
  std::optional<HomeId> offered;  // that one
  bool will_retry = false, will_release = false;
  std::deque<HomeId> waiting;  // entries of the home that this one keeps
  EventLoop::Watch watch;

  State(NodeContext& context, RemoteHome& its_home, SocketRelays& relays, int socket)
      : node(context), home(its_home), sockets(relays), fd(socket) {}

  void pump();
  const ListenerPlace& next_place();
  void ask_next();
  void on_asked(const ListenerPlace& whom, const Result<std::string>& reply);
  void on_refused(std::chrono::milliseconds wait);
  bool accept_one();
  void offer(const ListenerPlace& whom);
  std::optional<FileUser> peer_of_connection(HomeId connection) const;
  void on_answer(const ListenerPlace& whom, HomeId connection, const Result<std::string>& taken);
  bool is_lost(HomeId connection, int error);
  void let_go(HomeId connection);
  void waits_no_more(HomeId connection);
  void wait(HomeId connection);
  void put_back();
  bool put_back_one();
  void settle();
  void retry(std::chrono::milliseconds wait);
  void release_later();
};

HomeListener::HomeListener(NodeContext& node, RemoteHome& home, SocketRelays& sockets,
                           UniqueFd real)
    : RelayedHomeFile(std::move(real)),
      state_(std::make_shared<State>(node, home, sockets, HomeFile::real())) {}

HomeListener::~HomeListener() {
  state_->watch.reset();
  state_->places.clear();
  for (HomeId connection : std::exchange(state_->waiting, {})) state_->home.export_done(connection);
}

void HomeListener::set_id(HomeId id) {
  state_->id = id;
}

void HomeListener::share() {
  state_->is_shared = true;
}

void HomeListener::attach(const ListenerPlace& place, const ListenerPlace& left) {
  auto& places = state_->places;
  std::erase(places, left);
  if (std::find(places.begin(), places.end(), place) == places.end()) places.push_back(place);
  state_->is_at_home = false;
  if (!state_->watch) {
    auto made = state_->node.loop.watch(real(), EPOLLIN | EPOLLET,
                                        [state = state_.get()](uint32_t) { state->pump(); });
    check(made.has_value(), "a socket can be watched");
    state_->watch = std::move(*made);
  }
  state_->pump();
}

void HomeListener::detach(const ListenerPlace& place) {
  std::erase(state_->places, place);
  state_->settle();
}

void HomeListener::forget_node(NodeId node) {
  std::erase_if(state_->places, [&](const ListenerPlace& one) { return one.node == node; });
  state_->settle();
}

void HomeListener::come_home(pid_t process, const ListenerPlace& left) {
  std::erase(state_->places, left);
  state_->process = process;
  state_->is_at_home = true;
  state_->put_back();
}

void HomeListener::take_back(HomeId connection, std::string_view came) {
  auto* socket = dynamic_cast<HomeSocket*>(state_->home.find(connection));
  if (socket == nullptr) return;
  UniqueFd copy(fcntl(socket->real(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return log_warn("sockets", "a connection is lost: out of descriptors");
  state_->wait(state_->home.add(std::make_unique<HomeSocket>(
      state_->node, state_->sockets.passing(), std::move(copy), std::string(came))));
  state_->settle();
  state_->pump();
}

Result<UniqueFd> HomeListener::lend() {
  if (state_->is_lent) return errno_error("a process has the socket", EBUSY);
  UniqueFd copy(fcntl(real(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return errno_error("dup");
  state_->is_lent = true;
  state_->put_back();
  return copy;
}

void HomeListener::end_loan() {
  state_->is_lent = false;
  state_->pump();
}

void HomeListener::take_in(UniqueFd accepted, std::string came) {
  state_->wait(state_->home.add(std::make_unique<HomeSocket>(
      state_->node, state_->sockets.passing(), std::move(accepted), std::move(came))));
  state_->settle();
  state_->pump();
}

bool HomeListener::has_waiting() const {
  return !state_->waiting.empty();
}

void HomeListener::State::pump() {
  if (is_busy || is_lent || places.empty()) return;
  if (is_shared) return ask_next();
  if (!waiting.empty() || accept_one()) offer(next_place());
}

// The latest first: that its process has moved there may be known before that it has left others.
const ListenerPlace& HomeListener::State::next_place() {
  return places[places.size() - 1 - turn++ % places.size()];
}

void HomeListener::State::ask_next() {
  if (waiting.empty() && !has_connection(fd)) {
    refused = 0;
    return asked_since.reset();
  }
  if (!asked_since) asked_since = Clock::now();
  const ListenerPlace whom = next_place();
  ListenerAsk question;
  question.listener = whom.number;
  question.is_urgent = Clock::now() - *asked_since > kUrgent;
  is_busy = true;
  node.messenger.request(whom.node, question, {},
                         [weak = weak_from_this(), whom](Result<std::string> reply) {
                           if (auto self = weak.lock()) self->on_asked(whom, reply);
                         });
}

void HomeListener::State::on_asked(const ListenerPlace& whom, const Result<std::string>& reply) {
  is_busy = false;
  const int error = reply ? 0 : reply.error().errno_or(EIO);
  if (error == EAGAIN) return on_refused(kSharedRetry);
  refused = 0;
  if (error != 0) {
    std::erase(places, whom);
    settle();
    return pump();
  }
  asked_since.reset();
  if (!waiting.empty() || accept_one()) offer(whom);
}

void HomeListener::State::on_refused(std::chrono::milliseconds wait) {
  settle();
  if (++refused < places.size()) return pump();
  refused = 0;
  if (is_shared) put_back();
  retry(wait);
}

void HomeListener::State::offer(const ListenerPlace& whom) {
  is_busy = true;
  offered = waiting.front();
  ListenerOffer message;
  message.listener = whom.number;
  message.connection = *offered;
  const auto peer = peer_of_connection(*offered);
  message.has_peer = peer.has_value();
  message.peer = peer.value_or(FileUser{});
  node.messenger.request(
      whom.node, message, {},
      [weak = weak_from_this(), whom, connection = *offered](Result<std::string> taken) {
        if (auto self = weak.lock()) self->on_answer(whom, connection, taken);
      });
}

std::optional<FileUser> HomeListener::State::peer_of_connection(HomeId connection) const {
  const HomeFile* socket = home.find(connection);
  return socket ? peer_of(socket->real()) : std::nullopt;
}

bool HomeListener::State::accept_one() {
  UniqueFd accepted = accept_now(fd);
  if (!accepted) {
    if (errno != EAGAIN) retry(kRetry);
    return false;
  }
  wait(home.add(std::make_unique<HomeSocket>(node, sockets.passing(), std::move(accepted))));
  return true;
}

void HomeListener::State::on_answer(const ListenerPlace& whom, HomeId connection,
                                    const Result<std::string>& taken) {
  is_busy = false;
  offered.reset();
  const int error = taken ? 0 : taken.error().errno_or(EIO);
  if (error == EAGAIN) return on_refused(kRetry);
  refused = 0;
  if (!is_shared) turn = 0;
  if (error != 0) std::erase(places, whom);
  if (error == 0 || is_lost(connection, error)) let_go(connection);  // who took it has a reference
  settle();
  pump();
}

// With a node that had it, and may have read of it.
bool HomeListener::State::is_lost(HomeId connection, int error) {
  auto* socket = dynamic_cast<HomeSocket*>(home.find(connection));
  return socket == nullptr || (error != EPIPE && socket->has_been_attached());
}

void HomeListener::State::wait(HomeId connection) {
  waiting.push_back(connection);
  if (guard.value == 0) guard = home.add_guard({}, id);
}

void HomeListener::State::let_go(HomeId connection) {
  waits_no_more(connection);
  home.export_done(connection);
}

void HomeListener::State::waits_no_more(HomeId connection) {
  std::erase(waiting, connection);
  if (!waiting.empty()) return;
  kept_since.reset();
  // Not in the midst of what we do: nothing else may keep us.
  run_after(node.loop, {}, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (self && self->waiting.empty()) self->home.export_done(std::exchange(self->guard, HomeId{}));
  });
}

// What waits has nobody elsewhere to go to.
void HomeListener::State::settle() {
  if (waiting.empty() || (!places.empty() && !is_lent)) return;
  is_shared || is_at_home || is_lent ? put_back() : release_later();
}

// The rest stays, to be tried again.
void HomeListener::State::put_back() {
  bool has_room = true;
  while (has_room && waiting.size() > (offered ? 1 : 0)) has_room = put_back_one();
  if (has_room || (!places.empty() && !is_lent)) return;
  if (!kept_since) kept_since = Clock::now();
  if (Clock::now() - *kept_since < kKept) return retry(kSharedRetry);
  log_warn("sockets", "{} connections are lost: the queue of their socket has no room for them",
           waiting.size());
  while (!waiting.empty()) let_go(waiting.front());
}

bool HomeListener::State::put_back_one() {
  auto next =
      std::find_if(waiting.begin(), waiting.end(), [this](HomeId one) { return one != offered; });
  const HomeId connection = *next;
  auto local = connect_to_queue(fd, peer_of_connection(connection));
  if (!local) {
    log_debug("sockets", "a connection waits: {}", local.error().message());
    return false;
  }
  kept_since.reset();
  StreamTaken taken;
  taken.home = taken.guard = connection;
  if (node.messenger.send(node.self, taken) &&
      !sockets.join(std::move(*local), process, node.self, connection)) {
    StreamClose close;
    close.home = connection;
    if (!node.messenger.send(node.self, close)) log_warn("sockets", "a connection is lost");
  }
  waits_no_more(connection);
  return true;
}

void HomeListener::State::retry(std::chrono::milliseconds wait) {
  if (std::exchange(will_retry, true)) return;
  run_after(node.loop, wait, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->will_retry = false;
    self->settle();
    self->pump();
  });
}

void HomeListener::State::release_later() {
  if (std::exchange(will_release, true)) return;
  run_after(node.loop, kRelease, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->will_release = false;
    if (self->places.empty()) self->put_back();
  });
}

}  // namespace krg
