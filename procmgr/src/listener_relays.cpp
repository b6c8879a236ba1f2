// SPDX-License-Identifier: GPL-2.0-or-later
#include "listener_relays.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "home_listener.h"
#include "in_worker.h"
#include "krg/runtime/log.h"
#include "process_fds.h"

namespace krg {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook{500};
// So long after krgd has handed a socket over, some process has it, or none comes to have it.
constexpr std::chrono::seconds kComes{2};

std::string rest_of(int socket) {
  std::string all, piece(65536, '\0');
  for (;;) {
    const ssize_t got = recv(socket, piece.data(), piece.size(), MSG_DONTWAIT);
    if (got <= 0) return all;
    all.append(piece, 0, static_cast<size_t>(got));
  }
}

}  // namespace

ListenerRelays::ListenerRelays(NodeContext& node, RemoteHome& home, SocketRelays& sockets)
    : node_(node), home_(home), sockets_(sockets) {
  Messenger& messenger = node_.messenger;
  auto find = [&home](HomeId id) { return dynamic_cast<HomeListener*>(home.find(id)); };
  messenger.on_request<ListenerAttach>(
      [find](NodeId from, const ListenerAttach& message, std::string_view, Messenger::Reply reply) {
        HomeListener* listener = find(message.home);
        if (listener == nullptr) return reply.fail(ESTALE, "the socket is gone");
        reply.ok();
        if (message.shares) listener->share();
        listener->attach({from, 0, message.listener}, message.left);
      });
  messenger.on<ListenerPause>([find](NodeId from, const ListenerPause& message, std::string_view) {
    if (HomeListener* listener = find(message.home)) listener->detach({from, 0, message.listener});
  });
  messenger.on_request<ListenerAsk>(
      [this](NodeId, const ListenerAsk& question, std::string_view, Messenger::Reply reply) {
        answer(question, std::move(reply));
      });
  messenger.on<ListenerReturn>(
      [find, &home](NodeId from, const ListenerReturn& message, std::string_view came) {
        if (HomeListener* listener = find(message.home))
          listener->take_back(message.connection, came);
        home.drop_reference(from, message.connection);
      });
  messenger.on_request<ListenerOffer>(
      [this](NodeId from, const ListenerOffer& message, std::string_view, Messenger::Reply reply) {
        on_offer(from, message, std::move(reply));
      });
}

HomeId ListenerRelays::keep(UniqueFd socket, bool is_shared, HomeId& guard) {
  std::erase_if(kept_, [this](const auto& entry) { return home_.find(entry.second) == nullptr; });
  struct stat attributes {};
  fstat(socket.get(), &attributes);
  auto known = kept_.find(attributes.st_ino);
  if (known != kept_.end()) {
    if (is_shared) dynamic_cast<HomeListener&>(*home_.find(known->second)).share();
    // The nodes that it has been to may all let go of it meanwhile.
    guard = home_.add_guard(std::move(socket), known->second);
    return known->second;
  }
  auto made = std::make_unique<HomeListener>(node_, home_, sockets_, std::move(socket));
  HomeListener& listener = *made;
  if (is_shared) listener.share();
  guard = home_.add(std::move(made));
  listener.set_id(guard);
  kept_.emplace(attributes.st_ino, guard);
  return guard;
}

Result<UniqueFd> ListenerRelays::open(pid_t body, const Origin& from, const ListenerShape& shape,
                                      int flags) {
  Listener listener;
  listener.body = body;
  listener.home = from.home;
  listener.id = from.id;
  listener.users.pids = {body};
  auto made = open_socket(listener, shape, from.is_shared);
  if (!made) return made;
  struct stat attributes {};
  auto here = listener_shape_of(made->get());
  if (fstat(made->get(), &attributes) != 0 || !here) return errno_error("a listening socket");
  listener.shape = *here;
  listener.inode = attributes.st_ino;
  if (flags & O_NONBLOCK) fcntl(made->get(), F_SETFL, O_NONBLOCK);
  attach(add(std::move(listener)), from.left, from.is_shared);
  return made;
}

// What comes by krgd's own of this node is for all who share it.
Result<UniqueFd> ListenerRelays::open_socket(Listener& listener, const ListenerShape& shape,
                                             bool is_shared) {
  if (!is_shared)
    if (auto borrowed = borrow(listener, shape)) return borrowed;
  listener.shape = shape;
  return listen_like(listener.shape);
}

void ListenerRelays::add_lendable(NodeId home, const ListenerShape& place, HomeId id) {
  std::erase_if(lendable_, [this](const Lendable& one) { return home_.find(one.id) == nullptr; });
  lendable_.push_back({home, place, id});
}

// The address that clients know is krgd's here: the process's own would have another port.
Result<UniqueFd> ListenerRelays::borrow(Listener& listener, const ListenerShape& shape) {
  for (const Lendable& one : lendable_) {
    auto* lender = dynamic_cast<HomeListener*>(home_.find(one.id));
    if (lender == nullptr || one.home != listener.home || !is_place_of(one.place, shape)) continue;
    auto socket = lender->lend();
    if (!socket) continue;
    // What it had when it was here before is not looked for any more.
    for (auto entry = listeners_.begin(); entry != listeners_.end();) {
      const bool was_its = entry->second.lent == one.id;
      if (was_its) let_go(entry->first, entry->second);
      entry = was_its ? listeners_.erase(entry) : std::next(entry);
    }
    listener.lent = one.id;
    fcntl(socket->get(), F_SETFL, 0);
    return socket;
  }
  return errno_error("no such socket", ENOENT);
}

HomeListener* ListenerRelays::lender_of(const Listener& listener) {
  return dynamic_cast<HomeListener*>(home_.find(listener.lent));
}

uint64_t ListenerRelays::add(Listener listener) {
  const uint64_t number = next_++;
  listeners_.emplace(number, std::move(listener));
  if (listeners_.size() == 1) {
    looks_ = node_.loop.every(kLook, [this] { drop_closed(); });
    closes_.emplace(node_.loop, [this] { drop_closed(); });
  }
  return number;
}

uint64_t ListenerRelays::add_own(pid_t process, NodeId home, ino_t inode,
                                 const ListenerShape& shape) {
  Listener listener;
  listener.body = process;
  listener.home = home;
  listener.inode = inode;
  listener.shape = shape;
  listener.is_own = true;
  return add(std::move(listener));
}

void ListenerRelays::set_home(uint64_t number, HomeId id) {
  if (auto found = listeners_.find(number); found != listeners_.end()) found->second.id = id;
}

void ListenerRelays::drop(uint64_t number) {
  listeners_.erase(number);
}

bool ListenerRelays::is_own(ino_t inode) const {
  return std::any_of(listeners_.begin(), listeners_.end(), [&](const auto& entry) {
    return entry.second.is_own && entry.second.inode == inode;
  });
}

void ListenerRelays::attach(uint64_t number, const ListenerPlace& left, bool shares) {
  const Listener& listener = listeners_.at(number);
  ListenerAttach message;
  message.home = listener.id;
  message.listener = number;
  message.left = left;
  message.shares = shares;
  node_.messenger.request(listener.home, message, {}, [](Result<std::string> attached) {
    if (!attached)
      log_warn("sockets", "a listening socket gets no connections: {}", attached.error().message());
  });
}

std::optional<ListenerRelays::Source> ListenerRelays::source_of(ino_t inode) const {
  for (auto& [number, listener] : listeners_)
    if (listener.inode == inode && !listener.is_own)
      return Source{listener.home, listener.id, number};
  return std::nullopt;
}

void ListenerRelays::answer(const ListenerAsk& question, Messenger::Reply reply) {
  auto found = listeners_.find(question.listener);
  if (found == listeners_.end()) return reply.fail(EPIPE, "nobody listens");
  if (found->second.is_paused) return reply.fail(EAGAIN, "not now");
  auto later = shared(std::move(reply));
  const std::function<void(Acceptance)> done =
      alive_.guard([this, question, later](Acceptance acceptance) {
        auto found = listeners_.find(question.listener);
        if (found == listeners_.end()) return later->fail(EPIPE, "nobody listens");
        Listener& listener = found->second;
        if (!acceptance.has_connection) listener.has_accepted |= listener.was_offered;
        const bool may_come =
            acceptance.is_awaited || (question.is_urgent && listener.has_accepted);
        const bool is_free = !acceptance.has_connection && !acceptance.users.pids.empty();
        listener.is_open |= !acceptance.users.pids.empty();
        listener.users = std::move(acceptance.users);
        if (listener.is_paused || !is_free || !may_come) return later->fail(EAGAIN, "not now");
        later->ok();
      });
  in_worker(
      node_.workers,
      [inode = found->second.inode, users = found->second.users,
       is_urgent = question.is_urgent != 0] { return acceptance_of(inode, users, is_urgent); },
      done);
}

// A process that is still to be made here may not come to be: it is offered nothing.
void ListenerRelays::on_offer(NodeId from, const ListenerOffer& offer, Messenger::Reply reply) {
  auto found = listeners_.find(offer.listener);
  if (found == listeners_.end()) return reply.fail(EPIPE, "nobody listens");
  Listener& listener = found->second;
  if (listener.is_paused) return reply.fail(EAGAIN, "not now");
  listener.is_open |= listener.is_own || has_socket(listener.body, listener.inode);
  if (listener.is_open) return take_offer(from, offer, std::move(reply));
  auto later = shared(std::move(reply));
  const std::function<void(pid_t)> done = alive_.guard([this, from, offer, later](pid_t user) {
    auto found = listeners_.find(offer.listener);
    if (found == listeners_.end()) return later->fail(EPIPE, "nobody listens");
    if (user == 0 || found->second.is_paused) return later->fail(EAGAIN, "not now");
    found->second.is_open = true;
    take_offer(from, offer, std::move(*later));
  });
  in_worker(
      node_.workers, [inode = listener.inode] { return find_user(inode); }, done);
}

void ListenerRelays::take_offer(NodeId from, const ListenerOffer& offer, Messenger::Reply reply) {
  Listener& listener = listeners_.at(offer.listener);
  auto local =
      connect_to(listener.shape, offer.has_peer ? std::optional(offer.peer) : std::nullopt);
  if (!local) {
    const int number = local.error().errno_or(EIO);
    return reply.fail(number == ECONNREFUSED ? EPIPE : EAGAIN, local.error().message());
  }
  listener.was_offered = true;
  StreamTaken taken;
  taken.home = offer.connection;
  if (!node_.messenger.send(from, taken)) return;
  if (auto joined = sockets_.join(std::move(*local), listener.body, from, offer.connection);
      !joined) {
    StreamClose close;
    close.home = offer.connection;
    if (!node_.messenger.send(from, close)) return;
    return reply.fail(EPIPE, joined.error().message());
  }
  reply.ok();
}

void ListenerRelays::pause(uint64_t number, int socket) {
  auto found = listeners_.find(number);
  if (found == listeners_.end()) return;
  Listener& listener = found->second;
  listener.is_paused = true;
  ListenerPause pause;
  pause.home = listener.id;
  pause.listener = number;
  if (!node_.messenger.send(listener.home, pause))
    log_debug("sockets", "n{} is gone", listener.home.value);
  give_back_all(listener, socket);
}

void ListenerRelays::give_back_all(const Listener& listener, int socket) {
  HomeListener* lender = lender_of(listener);
  std::vector<std::pair<UniqueFd, std::string>> others;
  for (pollfd waits{socket, POLLIN, 0}; ::poll(&waits, 1, 0) > 0 && (waits.revents & POLLIN);) {
    UniqueFd accepted(accept4(socket, nullptr, nullptr, SOCK_CLOEXEC));
    if (!accepted) break;
    std::string came = rest_of(accepted.get());
    const auto source = sockets_.take_back(accepted.get(), came);
    if (!source) {
      others.emplace_back(std::move(accepted), std::move(came));
      continue;
    }
    ListenerReturn back;
    back.home = source->home == listener.home ? listener.id : listener.lent;
    back.connection = source->id;
    if (!node_.messenger.send(source->home, back, came)) continue;
  }
  if (lender != nullptr) lender->end_loan();
  // Of clients of this node, who connected to the process's own socket.
  for (auto& [accepted, came] : others)
    if (lender != nullptr)
      lender->take_in(std::move(accepted), std::move(came));
    else
      log_warn("sockets", "a connection to a port of n{} alone is lost", node_.self.value);
}

void ListenerRelays::resume(uint64_t number) {
  auto found = listeners_.find(number);
  if (found == listeners_.end()) return;
  found->second.is_paused = false;
  if (HomeListener* lender = lender_of(found->second))
    if (auto lent = lender->lend(); !lent) log_warn("sockets", "{}", lent.error().message());
  attach(number, {}, false);
}

void ListenerRelays::come_home(pid_t body, const Origin& from) {
  if (auto* listener = dynamic_cast<HomeListener*>(home_.find(from.id)))
    listener->come_home(body, from.left);
}

// krgd has one that is lent, too: it is closed when no process has it.
bool ListenerRelays::is_closed(Listener& listener, const std::set<ino_t>& listening) {
  if (listener.lent.value == 0) return listening.count(listener.inode) == 0;
  const pid_t user =
      has_socket(listener.body, listener.inode) ? listener.body : find_user(listener.inode);
  if (user == 0 && !listener.is_open) {
    if (count_sockets(getpid(), listener.inode) > 1) listener.kept = Clock::now();
    return Clock::now() - listener.kept > kComes;
  }
  if (user == 0) return true;
  listener.body = user;
  listener.is_open = true;
  return false;
}

void ListenerRelays::let_go(uint64_t number, const Listener& listener) {
  if (HomeListener* lender = lender_of(listener); lender != nullptr && !listener.is_paused)
    lender->end_loan();
  ListenerPause pause;
  pause.home = listener.id;
  pause.listener = number;
  StreamClose close;
  close.home = listener.id;
  if (!node_.messenger.send(listener.home, pause) || !node_.messenger.send(listener.home, close))
    log_debug("sockets", "n{} is gone", listener.home.value);
}

void ListenerRelays::drop_closed() {
  if (listeners_.empty()) return;
  const std::set<ino_t> inodes = listening_inodes();
  for (auto entry = listeners_.begin(); entry != listeners_.end();) {
    const bool closed = is_closed(entry->second, inodes);
    if (closed) let_go(entry->first, entry->second);
    entry = closed ? listeners_.erase(entry) : std::next(entry);
  }
  if (!listeners_.empty()) return;
  looks_ = {};
  closes_.reset();
}

}  // namespace krg
