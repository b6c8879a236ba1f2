// SPDX-License-Identifier: GPL-2.0-or-later
#include "listener_shape.h"

#include <fmt/core.h>
#include <linux/un.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstring>
#include <memory>

#include "text_scan.h"
#include "whole_file.h"

namespace krg {
namespace {

sockaddr* address_of(ListenerShape& shape) {
  return reinterpret_cast<sockaddr*>(&shape.address);
}

void set_port(ListenerShape& shape, in_port_t port) {
  if (shape.domain == AF_INET) reinterpret_cast<sockaddr_in&>(shape.address).sin_port = port;
  if (shape.domain == AF_INET6) reinterpret_cast<sockaddr_in6&>(shape.address).sin6_port = port;
}

void set_loopback(ListenerShape& shape) {
  if (shape.domain == AF_INET)
    reinterpret_cast<sockaddr_in&>(shape.address).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (shape.domain == AF_INET6)
    reinterpret_cast<sockaddr_in6&>(shape.address).sin6_addr = in6addr_loopback;
}

bool is_any(const ListenerShape& shape) {
  if (shape.domain == AF_INET)
    return reinterpret_cast<const sockaddr_in&>(shape.address).sin_addr.s_addr == INADDR_ANY;
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(shape.address).sin6_addr;
  return memcmp(&v6, &in6addr_any, sizeof v6) == 0;
}

}  // namespace

Result<ListenerShape> listener_shape_of(int socket) {
  ListenerShape shape;
  socklen_t size = sizeof shape.domain;
  if (getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &shape.domain, &size) != 0)
    return errno_error("SO_DOMAIN");
  size = sizeof shape.only_v6;
  if (shape.domain == AF_INET6)
    getsockopt(socket, IPPROTO_IPV6, IPV6_V6ONLY, &shape.only_v6, &size);
  size = sizeof shape.address;
  if (getsockname(socket, address_of(shape), &size) != 0) return errno_error("getsockname");
  shape.address_bytes = size;
  return shape;
}

Result<UniqueFd> listen_at(ListenerShape& shape) {
  UniqueFd made(socket(shape.domain, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!made) return errno_error("socket");
  const int on = 1;
  setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (shape.domain == AF_INET6)
    setsockopt(made.get(), IPPROTO_IPV6, IPV6_V6ONLY, &shape.only_v6, sizeof shape.only_v6);
  if (bind(made.get(), address_of(shape), shape.address_bytes) != 0 ||
      listen(made.get(), SOMAXCONN) != 0)
    return errno_error("listening");
  return made;
}

Result<UniqueFd> listen_like(ListenerShape& shape) {
  if (shape.domain == AF_UNIX) {
    shape.address_bytes = sizeof(sa_family_t);
    return listen_at(shape);
  }
  if (auto same = listen_at(shape)) return same;
  set_loopback(shape);
  if (auto local = listen_at(shape)) return local;
  set_port(shape, 0);
  return listen_at(shape);
}

bool is_place_of(const ListenerShape& place, const ListenerShape& shape) {
  if (shape.domain == AF_UNIX || place.domain != shape.domain) return false;
  ListenerShape same = shape;
  if (is_any(shape)) set_loopback(same);
  return place.address_bytes == same.address_bytes &&
         memcmp(&place.address, &same.address, same.address_bytes) == 0;
}

std::optional<FileUser> peer_of(int socket) {
  ucred peer{};
  int domain = 0;
  socklen_t size = sizeof domain, peer_size = sizeof peer;
  if (getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 || domain != AF_UNIX ||
      getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) != 0)
    return std::nullopt;
  return FileUser{peer.uid, peer.gid};
}

Result<UniqueFd> connect_to_queue(int socket, std::optional<FileUser> as) {
  auto shape = listener_shape_of(socket);
  if (!shape) return shape.error();
  if (shape->domain != AF_UNIX) {
    // tcp_info of a socket that listens: how many wait in its queue, and its size. Linux takes one
    // more, and lets others knock again and again.
    tcp_info queue{};
    socklen_t size = sizeof queue;
    if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &queue, &size) == 0 &&
        queue.tcpi_unacked > queue.tcpi_sacked)
      return errno_error("the queue is full", EAGAIN);
    return connect_to(*shape, as);
  }
  const UniqueFd file(ioctl(socket, SIOCUNIXFILE));
  if (file) {
    auto& address = reinterpret_cast<sockaddr_un&>(shape->address);
    const auto end = fmt::format_to_n(address.sun_path, sizeof address.sun_path - 1,
                                      "/proc/self/fd/{}", file.get());
    *end.out = 0;
    shape->address_bytes = sizeof address;
  }
  return connect_to(*shape, as);
}

Result<UniqueFd> connect_to(ListenerShape shape, std::optional<FileUser> as) {
  UniqueFd made(socket(shape.domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made) return errno_error("socket");
  if (shape.domain != AF_UNIX && is_any(shape)) set_loopback(shape);
  // By its name the accepted end of an unix socket tells which it belongs to.
  const sockaddr_un own{AF_UNIX, {}};
  if (shape.domain == AF_UNIX)
    if (bind(made.get(), reinterpret_cast<const sockaddr*>(&own), sizeof(sa_family_t)) != 0)
      return errno_error("bind");
  const std::unique_ptr<ActAs> acts = as ? std::make_unique<ActAs>(*as) : nullptr;
  if (connect(made.get(), address_of(shape), shape.address_bytes) != 0 && errno != EINPROGRESS)
    return errno_error("connect");
  return made;
}

std::set<ino_t> listening_inodes() {
  std::set<ino_t> inodes;
  struct Table {
    const char* path;
    size_t state_at, inode_at;
    std::string_view listens;
  };
  // proc(5); a unix socket's state: SS_UNCONNECTED with __SO_ACCEPTCON in the flags.
  static constexpr Table kTables[] = {{"/proc/self/net/tcp", 3, 9, "0A"},
                                      {"/proc/self/net/tcp6", 3, 9, "0A"},
                                      {"/proc/self/net/unix", 3, 6, "00010000"}};
  for (const Table& table : kTables) {
    auto text = read_whole_file(table.path);
    for (std::string_view rest = text ? std::string_view(*text) : ""; !rest.empty();) {
      const auto words = split_words(next_line(rest));
      if (words.size() <= table.inode_at || words[table.state_at] != table.listens) continue;
      if (auto inode = to_number<ino_t>(words[table.inode_at])) inodes.insert(*inode);
    }
  }
  return inodes;
}

}  // namespace krg
