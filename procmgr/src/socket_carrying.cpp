// Of SocketRelays: relays whose bodies move on. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <iterator>

#include "family/unix_sockets.h"
#include "fd_recipe.h"
#include "krg/runtime/log.h"
#include "socket_relays_impl.h"

namespace krg {

namespace {

// Of a TCP socket: bytes that the kernel has not handed to its peer yet.
bool is_on_the_way(int socket) {
  int bytes = 0;
  return ioctl(socket, SIOCOUTQNSD, &bytes) != 0 || bytes > 0;
}

// A datagram socket (unix(7)) hears nothing of its peer's end: it is looked at.
constexpr std::chrono::milliseconds kLookWhetherClosed{500}, kLookWhetherMoved{8};

}  // namespace

bool SocketRelays::Relay::looks_closed() {
  if (body_closed || !datagrams) return body_closed;
  struct stat attributes {};
  if (fstat(local.get(), &attributes) != 0) return false;
  const auto facts = unix_socket_facts(attributes.st_ino);
  return body_closed = facts && facts->peer == 0;
}

std::optional<uint64_t> SocketRelays::find(int body_end) const {
  const Relay* relay = find_by_end(body_end);
  return relay && !relay->waits ? std::optional(relay->number) : std::nullopt;
}

uint32_t SocketRelays::detail(uint64_t number) const {
  const Relay& relay = *relays_.at(number);
  return static_cast<uint32_t>(relay.type) | (relay.passes_fds ? kPassesFds : 0);
}

void SocketRelays::pause(const std::vector<uint64_t>& numbers, std::function<void()> done) {
  auto all_paused = std::shared_ptr<void>(nullptr, [done = std::move(done)](void*) { done(); });
  for (const uint64_t number : numbers) {
    Relay& relay = *relays_.at(number);
    relay.paused = true;
    relay.kept_end.reset();
    if (relay.datagrams) await_closes();
    SocketPause pause;
    pause.home = relay.id;
    pause.relay = number;
    node_.messenger.request(relay.home, pause, {},
                            [this, number, all_paused](Result<std::string> paused) {
                              if (!paused) return resume(number);  // which closes it
                              auto found = relays_.find(number);
                              if (found != relays_.end() && found->second->is_unpacking())
                                found->second->unpacked.push_back(all_paused);
                            });
  }
}

void SocketRelays::resume(uint64_t number) {
  auto found = relays_.find(number);
  if (found == relays_.end() || !found->second->paused) return;
  found->second->paused = false;
  for (const std::string& passed : std::exchange(found->second->carried, {}))
    passing_.cancel(passed);
  attach(*found->second, SocketAttach::kResumes);
  pump(number);
}

Result<std::vector<CarriedPiece>> SocketRelays::pack(std::vector<WaitingPiece> pieces) {
  std::vector<CarriedPiece> packed;
  for (WaitingPiece& piece : pieces) {
    auto passed = piece.fds.empty() ? std::string() : passing_.pack(std::move(piece.fds));
    if (!passed) {
      for (const CarriedPiece& before : packed)
        if (!before.passed.empty()) passing_.cancel(before.passed);
      return passed.error();
    }
    packed.push_back({std::move(piece.data), std::move(*passed)});
  }
  return packed;
}

std::optional<CarriedSocket> SocketRelays::carry(uint64_t number, int body_end) {
  auto found = relays_.find(number);
  if (found == relays_.end() || !found->second->paused) return std::nullopt;
  Relay& relay = *found->second;
  const int local = relay.local.get();
  pollfd state{local, POLLRDHUP, 0};
  ::poll(&state, 1, 0);
  const bool body_ended = (state.revents & POLLRDHUP) != 0;
  // Over TCP the end of the body's writing looks like that of its last descriptor.
  if ((state.revents & (POLLERR | POLLHUP)) || (body_ended && !relay.tells_unread))
    return std::nullopt;
  if (!relay.tells_unread && (is_on_the_way(local) || is_on_the_way(body_end))) return std::nullopt;
  if (relay.is_unpacking()) return std::nullopt;
  auto came = peek_all_pieces(body_end), wrote = peek_all_pieces(local);
  if (!came || !wrote) return std::nullopt;
  for (const Piece& piece : relay.to_body) {
    WaitingPiece& copy = came->emplace_back(WaitingPiece{piece.data, {}});
    for (const UniqueFd& fd : piece.fds) copy.fds.emplace_back(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  }
  auto packed_came = pack(std::move(*came)), packed_wrote = pack(std::move(*wrote));
  CarriedSocket all{relay.home, relay.id, {}, {}, {relay.to_home.begin(), relay.to_home.end()}};
  for (auto* packed : {&packed_came, &packed_wrote})
    if (*packed)
      for (const CarriedPiece& piece : **packed)
        if (!piece.passed.empty()) relay.carried.push_back(piece.passed);
  if (!packed_came || !packed_wrote) return std::nullopt;  // it is resumed
  all.came = std::move(*packed_came);
  std::move(packed_wrote->begin(), packed_wrote->end(), std::back_inserter(all.wrote));
  all.state.arrived = relay.arrived;
  all.state.home_ended = relay.home_ended;
  all.state.body_ended = body_ended;
  all.state.end_is_sent = relay.ended;
  return all;
}

// Nothing else tells of it.
void SocketRelays::await_closes() {
  bool is_moving = false, are_there = false;
  for (const auto& [number, relay] : relays_) {
    are_there |= relay->datagrams;
    is_moving |= relay->datagrams && relay->paused;
  }
  if (!are_there) return closes_.reset();
  closes_ = node_.loop.after(is_moving ? kLookWhetherMoved : kLookWhetherClosed, [this] {
    std::vector<uint64_t> closed;
    for (const auto& [number, relay] : relays_) {
      if (relay->looks_closed()) closed.push_back(number);
    }
    for (const uint64_t number : closed) pump(number);
    await_closes();
  });
}

// Closed by all: who takes over goes on.
void SocketRelays::leave_if_moved(Relay& relay) {
  pollfd state{relay.local.get(), POLLRDHUP, 0};
  ::poll(&state, 1, 0);
  const int closed = relay.tells_unread ? POLLHUP : POLLHUP | POLLRDHUP;
  if (!(state.revents & closed) && !relay.body_closed) return;
  SocketLeave leave;
  leave.home = relay.id;
  leave.relay = relay.number;
  if (!node_.messenger.send(relay.home, leave))
    log_debug("sockets", "n{} is gone", relay.home.value);
  close(relay.number);
}

}  // namespace krg
