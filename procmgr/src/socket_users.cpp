// SPDX-License-Identifier: GPL-2.0-or-later
#include "socket_users.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>

#include "descriptor_waits.h"
#include "process_fds.h"

namespace krg {
namespace {

using Clock = std::chrono::steady_clock;

// A process that has come to have the socket by a fork is found after so long.
constexpr std::chrono::milliseconds kLookEverywhere{50};

// Whether it has the socket; what it says of it.
bool ask(pid_t pid, const std::string& link, Acceptance& said) {
  const auto number = find_open(pid, link);
  if (!number) return false;
  if (auto socket = steal_fd(pid, *number)) {
    pollfd waits{socket->get(), POLLIN, 0};
    said.has_connection = ::poll(&waits, 1, 0) > 0;
  }
  said.is_awaited = waits_for(pid, link);
  return true;
}

}  // namespace

std::string link_of_socket(ino_t inode) {
  return fmt::format("socket:[{}]", inode);
}

Acceptance acceptance_of(ino_t inode, SocketUsers known, bool is_thorough) {
  Acceptance said;
  const std::string link = link_of_socket(inode);
  const auto is_found = [&said] { return said.has_connection || said.is_awaited; };
  auto& pids = said.users.pids;
  for (const pid_t pid : known.pids) {
    if (is_found())
      pids.push_back(pid);
    else if (ask(pid, link, said))
      pids.insert(is_found() ? pids.begin() : pids.end(), pid);
  }
  said.users.looked_everywhere = known.looked_everywhere;
  const auto now = Clock::now();
  if (is_found() ||
      (!is_thorough && !pids.empty() && now - known.looked_everywhere < kLookEverywhere))
    return said;
  const bool was_stopped =
      find_number_in("/proc", [&](int pid) {
        if (pid == getpid() || std::find(pids.begin(), pids.end(), pid) != pids.end()) return false;
        if (ask(pid, link, said)) pids.insert(is_found() ? pids.begin() : pids.end(), pid);
        return is_found();
      }).has_value();
  if (!was_stopped) said.users.looked_everywhere = now;
  return said;
}

bool has_socket(pid_t pid, ino_t inode) {
  return find_open(pid, link_of_socket(inode)).has_value();
}

size_t count_sockets(pid_t pid, ino_t inode) {
  size_t count = 0;
  find_number_in(fmt::format("/proc/{}/fd", pid), [&](int number) {
    count += links_to(pid, number, link_of_socket(inode)) ? 1 : 0;
    return false;
  });
  return count;
}

pid_t find_user(ino_t inode) {
  return find_number_in("/proc", [&](int pid) { return pid != getpid() && has_socket(pid, inode); })
      .value_or(0);
}

}  // namespace krg
