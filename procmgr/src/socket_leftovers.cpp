// Of SocketRelays: what a body leaves unread of a stream that others have, too. A copy of the
// body's end is kept while a piece is under way to it, unless its process uses epoll: what the last
// process of this node that had that end has not read is then still there, and goes back to the
// home, which takes off the socket what was read. Without one it would be lost with the end, and
// how much of the piece it was. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "descriptor_waits.h"
#include "in_worker.h"
#include "packed_bytes.h"
#include "process_fds.h"
#include "process_spec.h"
#include "socket_relays_impl.h"

namespace krg {
namespace {

using Clock = std::chrono::steady_clock;

// How soon it is noticed that a body which goes on has closed its end over something unread.
constexpr std::chrono::milliseconds kLook{20};
// A body that is being made has its end after so long, or never.
constexpr std::chrono::milliseconds kIsMade{200};

// krgd's children have copies of all that it has, until they exec.
bool is_krgd(pid_t pid) {
  static const std::string own = read_link("/proc/self/exe").value_or("");
  return read_link(fmt::format("/proc/{}/exe", pid)).value_or("") == own;
}

// An epoll instance tells of an end that is closed as long as anybody has a copy (epoll(7)).
bool has_epoll(pid_t pid) {
  return find_open(pid, "anon_inode:[eventpoll]").has_value() && !is_krgd(pid);
}

std::optional<int> number_of(pid_t pid, ino_t end) {
  return find_open(pid, link_of_socket(end));
}

pid_t find_program_with(ino_t end) {
  return find_number_in("/proc", [&](int pid) { return has_socket(pid, end) && !is_krgd(pid); })
      .value_or(0);
}

UniqueFd copy_of(pid_t pid, int number, ino_t end) {
  auto copy = steal_fd(pid, number);
  const auto identity = copy ? own_fd_identity(copy->get()) : copy.error();
  if (!identity || identity->inode != end) return {};
  return std::move(*copy);
}

}  // namespace

// Of a body that is being made: nobody has it yet.
void SocketRelays::keep_first_end(Relay& relay, int given) {
  relay.kept_end = UniqueFd(fcntl(given, F_DUPFD_CLOEXEC, 0));
  relay.kept_since = Clock::now();
  await_leftovers();
}

void SocketRelays::keep_end(Relay& relay) {
  if (relay.kept_end || !relay.is_joined_stream()) return;
  const auto& pids = relay.users.pids;
  if (std::any_of(pids.begin(), pids.end(), has_epoll)) return;
  for (const pid_t pid : pids) {
    if (relay.end_number >= 0) relay.kept_end = copy_of(pid, relay.end_number, relay.end);
    if (relay.kept_end) break;
    const auto number = number_of(pid, relay.end);
    if (!number) continue;
    relay.end_number = *number;
    relay.kept_end = copy_of(pid, *number, relay.end);
    if (relay.kept_end) break;
  }
  if (relay.kept_end) await_leftovers();
}

// By a timer, since the kernel tells of an end's closing only who does not have it.
void SocketRelays::await_leftovers() {
  if (leftovers_) return;
  leftovers_ = node_.loop.after(kLook, [this] {
    leftovers_.reset();
    std::vector<uint64_t> numbers;
    for (const auto& [number, relay] : relays_)
      if (relay->kept_end) numbers.push_back(number);
    for (const uint64_t number : numbers) look_for_leftovers(number, false, [] {});
    for (const uint64_t number : numbers) {
      const auto found = relays_.find(number);
      if (found != relays_.end() && found->second->kept_end) return await_leftovers();
    }
  });
}

// `looked` runs when it is known who has the end, and what is left has gone home.
void SocketRelays::look_for_leftovers(uint64_t number, bool body_has_ended,
                                      std::function<void()> looked) {
  Relay& relay = *relays_.at(number);
  if (body_has_ended) relay.kept_since = {};
  if (!relay.piece) {
    const bool is_made =
        std::any_of(relay.users.pids.begin(), relay.users.pids.end(),
                    [&](pid_t pid) { return has_socket(pid, relay.end) && !is_krgd(pid); });
    if (is_made || body_has_ended || Clock::now() - relay.kept_since > kIsMade)
      relay.kept_end.reset();
    return looked();
  }
  in_worker(
      node_.workers,
      [end = relay.end, pids = relay.users.pids] {
        User user;
        for (const pid_t pid : pids)
          if (user.pid == 0 && has_socket(pid, end)) user.pid = pid;
        if (user.pid == 0) user.pid = find_program_with(end);
        user.polls = user.pid != 0 && has_epoll(user.pid);
        return user;
      },
      [self = self_, number, piece = relay.arrived, looked = std::move(looked)](User user) {
        if (*self) (*self)->on_user(number, piece, user);
        looked();
      });
}

void SocketRelays::on_user(uint64_t number, uint64_t piece, User user) {
  const auto found = relays_.find(number);
  if (found == relays_.end()) return;
  Relay& relay = *found->second;
  if (!relay.kept_end || !relay.piece || relay.arrived != piece || relay.paused) return;
  const bool is_being_made = Clock::now() - relay.kept_since < kIsMade;
  if (user.pid == 0) return is_being_made ? void() : take_leftovers(relay);
  if (user.polls) return relay.kept_end.reset();
  auto& pids = relay.users.pids;
  if (std::find(pids.begin(), pids.end(), user.pid) == pids.end()) pids.push_back(user.pid);
}

void SocketRelays::take_leftovers(Relay& relay) {
  uint64_t left = 0;
  buffer_.resize(kMaxSocketPieceBytes);
  for (ssize_t got;
       (got = recv(relay.kept_end.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT)) > 0;)
    left += static_cast<uint64_t>(got);
  for (const Piece& piece : relay.to_body) left += piece.data.size();
  relay.to_body.clear();
  relay.kept_end.reset();
  auto reply = std::exchange(relay.piece, std::nullopt);
  reply->ok(object_bytes(left));
}

}  // namespace krg
