// SPDX-License-Identifier: GPL-2.0-or-later
#include "connection_cutter.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <charconv>
#include <filesystem>
#include <optional>
#include <set>
#include <system_error>

#include "ipv4_address.h"

namespace krg {
namespace {

// One end of the connection `fd`, by getsockname or getpeername; nothing for what is no such
// socket.
std::optional<sockaddr_in> end_of(int fd, int (*ask)(int, sockaddr*, socklen_t*)) {
  sockaddr_in end{};
  socklen_t length = sizeof end;
  if (ask(fd, reinterpret_cast<sockaddr*>(&end), &length) != 0) return std::nullopt;
  if (length != sizeof end || end.sin_family != AF_INET) return std::nullopt;
  return end;
}

// Calls `use` with each connection of this process: descriptor, this end, the other one.
template <class Use>
void for_each_connection(Use use) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    const std::string name = entry.path().filename();
    int fd = -1;
    std::from_chars(name.data(), name.data() + name.size(), fd);
    const auto remote_end = end_of(fd, ::getpeername), local_end = end_of(fd, ::getsockname);
    if (remote_end && local_end) use(fd, *local_end, *remote_end);
  }
}

}  // namespace

int cut_connections(const std::string& local, const std::string& peer, bool shares_host) {
  const auto own = ipv4_address(local), other = ipv4_address(peer);
  if (!own || !other) return 0;
  // Of a connection to ourselves both ends are here.
  std::set<in_port_t> own_ports;
  for_each_connection([&](int, const sockaddr_in& local_end, const sockaddr_in&) {
    own_ports.insert(local_end.sin_port);
  });
  int cut = 0;
  for_each_connection([&](int fd, const sockaddr_in& local_end, const sockaddr_in& remote_end) {
    if (remote_end.sin_addr.s_addr != other->sin_addr.s_addr) return;
    const bool made_by_us = remote_end.sin_port == other->sin_port;
    const bool made_by_peer = !shares_host && local_end.sin_port == own->sin_port &&
                              !own_ports.contains(remote_end.sin_port);
    if ((made_by_us || made_by_peer) && shutdown(fd, SHUT_RDWR) == 0) ++cut;
  });
  return cut;
}

bool same_host(const std::string& a, const std::string& b) {
  const auto first = ipv4_address(a), second = ipv4_address(b);
  return first && second && first->sin_addr.s_addr == second->sin_addr.s_addr;
}

}  // namespace krg
