// SPDX-License-Identifier: GPL-2.0-or-later
#include "socket_shape.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include "family/socket_options.h"
#include "packed_bytes.h"
#include "socket_option.h"

namespace krg {
namespace {

struct SocketKind {
  int32_t domain = 0, type = 0, protocol = 0;
};

bool is_known(const SocketKind& kind) {
  if (kind.domain == AF_UNIX) return true;
  return (kind.domain == AF_INET || kind.domain == AF_INET6) &&
         (kind.protocol == IPPROTO_TCP || kind.protocol == IPPROTO_UDP);
}

// The name that socket(2) gives: none, or no port.
bool is_bound(int socket, int domain) {
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&own), &size) != 0) return true;
  if (domain == AF_UNIX) return size > sizeof(sa_family_t);
  if (domain == AF_INET) {
    const auto& name = reinterpret_cast<const sockaddr_in&>(own);
    return name.sin_port != 0 || name.sin_addr.s_addr != htonl(INADDR_ANY);
  }
  const auto& name = reinterpret_cast<const sockaddr_in6&>(own);
  return name.sin6_port != 0 || !IN6_IS_ADDR_UNSPECIFIED(&name.sin6_addr);
}

// One of a pair whose peer has gone may have something still.
bool has_input(int socket) {
  char byte;
  return recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

std::string packed(const std::vector<SocketOption>& options) {
  PackedWriter out;
  for (const SocketOption& option : options) out.put(option);
  return out.take();
}

}  // namespace

std::optional<std::string> describe_new_socket(int socket) {
  const SocketKind kind{socket_option(socket, SOL_SOCKET, SO_DOMAIN),
                        socket_option(socket, SOL_SOCKET, SO_TYPE),
                        socket_option(socket, SOL_SOCKET, SO_PROTOCOL)};
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  const bool is_connected =
      getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &size) == 0 || errno != ENOTCONN;
  if (!is_known(kind) || is_connected || socket_option(socket, SOL_SOCKET, SO_ACCEPTCONN) == 1 ||
      is_bound(socket, kind.domain) || has_input(socket))
    return std::nullopt;
  PackedWriter out;
  out.put(kind);
  out.put_string(packed(socket_options(socket, kind.domain, kind.protocol)));
  return out.take();
}

Result<UniqueFd> make_new_socket(std::string_view description, int flags) {
  PackedReader in(description);
  const auto kind = in.get<SocketKind>();
  if (!in.ok()) return errno_error("recipe of a socket", EPROTO);
  UniqueFd made(
      socket(kind.domain, kind.type | SOCK_CLOEXEC | (flags & O_NONBLOCK), kind.protocol));
  if (!made) return errno_error("socket");
  set_options(made.get(), in.get_string());
  if (!in.ok()) return errno_error("recipe of a socket", EPROTO);
  return made;
}

std::string limits_of_socket(int socket) {
  std::vector<SocketOption> limits;
  for (const SocketOption& option : socket_options(socket, AF_UNSPEC, 0))
    if (option.level == SOL_SOCKET &&
        (option.name == SO_RCVTIMEO || option.name == SO_SNDTIMEO || option.name == SO_RCVLOWAT))
      limits.push_back(option);
  return packed(limits);
}

// What another kernel or an ordinary user's krgd may not set stays as socket(2) has it.
void set_options(int socket, std::string_view options) {
  PackedReader in(options);
  while (!in.at_end()) {
    const auto option = in.get<SocketOption>();
    if (in.ok()) setsockopt(socket, option.level, option.name, option.value.data(), option.bytes);
  }
}

std::string encode_connected(const ConnectedSocket& socket) {
  return PackedWriter().put_string(socket.options).put_string(socket.carried).take();
}

Result<ConnectedSocket> decode_connected(std::string_view bytes) {
  PackedReader in(bytes);
  ConnectedSocket socket{std::string(in.get_string()), {}};
  socket.carried = in.get_string();
  if (!in.ok() || !in.at_end()) return errno_error("recipe of a socket", EPROTO);
  return socket;
}

}  // namespace krg
