// SPDX-License-Identifier: GPL-2.0-or-later
#include "restart_sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "krg/runtime/hex.h"

namespace krg {

using nlohmann::json;
using State = FamilySocket::State;

namespace {

constexpr int kPatienceMs = 5000;
constexpr size_t kPathAt = offsetof(sockaddr_un, sun_path);

struct Address {
  sockaddr_storage storage{};
  socklen_t bytes = 0;

  Address() = default;
  explicit Address(std::string_view text)
      : bytes(static_cast<socklen_t>(std::min(text.size(), sizeof storage))) {
    memcpy(&storage, text.data(), bytes);
  }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  bool is_unix() const { return storage.ss_family == AF_UNIX; }
  bool has_name() const { return bytes > (is_unix() ? kPathAt : 0); }
  // Of a unix socket in a folder.
  std::string path() const {
    if (!is_unix() || bytes <= kPathAt) return {};
    const auto* name = reinterpret_cast<const sockaddr_un&>(storage).sun_path;
    return std::string(name, strnlen(name, bytes - kPathAt));
  }
  in_port_t port() const {
    return storage.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(storage).sin6_port
                                         : reinterpret_cast<const sockaddr_in&>(storage).sin_port;
  }
  void set_port(in_port_t port) {
    if (storage.ss_family == AF_INET6)
      reinterpret_cast<sockaddr_in6&>(storage).sin6_port = port;
    else
      reinterpret_cast<sockaddr_in&>(storage).sin_port = port;
  }
  // The same port of another address of this node.
  void set_host(bool any) {
    if (storage.ss_family == AF_INET6)
      reinterpret_cast<sockaddr_in6&>(storage).sin6_addr = any ? in6addr_any : in6addr_loopback;
    else
      reinterpret_cast<sockaddr_in&>(storage).sin_addr.s_addr =
          htonl(any ? INADDR_ANY : INADDR_LOOPBACK);
  }
  bool is_any() const {
    if (storage.ss_family == AF_INET)
      return reinterpret_cast<const sockaddr_in&>(storage).sin_addr.s_addr == INADDR_ANY;
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr;
    return storage.ss_family == AF_INET6 && memcmp(&v6, &in6addr_any, sizeof v6) == 0;
  }
};

Address name_of(int fd) {
  Address name;
  name.bytes = sizeof name.storage;
  if (getsockname(fd, name.get(), &name.bytes) != 0) name.bytes = 0;
  return name;
}

std::string text_of(const Address& address) {
  if (address.is_unix()) return address.path();
  char text[INET6_ADDRSTRLEN] = {};
  const void* host = address.storage.ss_family == AF_INET6
                         ? static_cast<const void*>(
                               &reinterpret_cast<const sockaddr_in6&>(address.storage).sin6_addr)
                         : &reinterpret_cast<const sockaddr_in&>(address.storage).sin_addr;
  inet_ntop(address.storage.ss_family, host, text, sizeof text);
  return fmt::format("{}:{}", text, ntohs(address.port()));
}

void set_options(int fd, const FamilySocket& socket) {
  // One that is none of this kernel's matters less than that the program goes on.
  for (const SocketOption& option : socket.options)
    setsockopt(fd, option.level, option.name, option.value.data(),
               std::min<socklen_t>(option.bytes, option.value.size()));
}

Result<UniqueFd> new_socket(const FamilySocket& like) {
  UniqueFd made(socket(like.domain, like.type | SOCK_CLOEXEC, like.protocol));
  if (!made) return errno_error("a socket");
  set_options(made.get(), like);
  return made;
}

// Addresses of connections that have ended are free only so.
void reuse_address(int fd, bool reuses) {
  const int on = reuses;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
}

// Paths begin where the program stood when it chose them; a socket that is there is what is left of
// the one before.
Status bind_to(int fd, const FamilySocket& socket, const Address& address) {
  const std::string path = address.path();
  if (path.empty())
    return bind(fd, address.get(), address.bytes) == 0 ? Status() : errno_error(text_of(address));
  UniqueFd here(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (path.front() != '/' && chdir(socket.folder.c_str()) != 0) return errno_error(socket.folder);
  struct stat found {};
  if (lstat(path.c_str(), &found) == 0 && S_ISSOCK(found.st_mode)) unlink(path.c_str());
  const Status bound =
      bind(fd, address.get(), address.bytes) == 0 ? Status() : errno_error("a socket at " + path);
  if (fchdir(here.get()) != 0) return errno_error("the current folder");
  return bound;
}

// At its name; at another one of this node where that is another node's now.
Status bind_near(int fd, const FamilySocket& socket, const Address& wanted) {
  if (!wanted.has_name() || wanted.bytes == 0) return {};
  Status bound = bind_to(fd, socket, wanted);
  if (bound || wanted.is_unix()) return bound;
  Address other = wanted;
  other.set_host(false);
  if (bind_to(fd, socket, other)) return {};
  other.set_port(0);
  return bind_to(fd, socket, other);
}

Result<UniqueFd> make_listener(const FamilySocket& like) {
  auto made = new_socket(like);
  if (!made) return made;
  Address address(like.name);
  if (!address.is_unix()) reuse_address(made->get(), true);
  Status bound = bind_to(made->get(), like, address);
  if (!bound && !address.is_unix() && bound.error().errno_or(0) == EADDRNOTAVAIL) {
    const std::string before = text_of(address);
    address.set_host(true);
    bound = bind_to(made->get(), like, address);
    if (bound)
      fmt::print(stderr, "krgrun: {} is no address of this node: it listens at {}\n", before,
                 text_of(address));
  }
  if (!bound) return bound.error();
  set_options(made->get(), like);
  if (listen(made->get(), like.backlog) != 0) return errno_error("listening");
  return made;
}

Result<UniqueFd> make_unconnected(const FamilySocket& like) {
  auto made = new_socket(like);
  if (!made) return made;
  const Address name(like.name), peer(like.peer_name);
  const bool is_bound = name.is_unix() ? name.has_name() : name.port() != 0;
  if (is_bound)
    if (auto bound = bind_to(made->get(), like, name); !bound) return bound.error();
  if (peer.bytes > 0 && connect(made->get(), peer.get(), peer.bytes) != 0)
    fmt::print(stderr, "krgrun: a socket to {}: {}\n", text_of(peer), strerror(errno));
  return made;
}

struct Pair {
  UniqueFd server, client;
};

// A connection by way of `listener`: whoever else connects meanwhile is turned away.
Result<Pair> connect_by(int listener, const FamilySocket& server, const FamilySocket& client) {
  auto made = new_socket(client);
  if (!made) return made.error();
  const Address own(client.name);
  if (!own.is_unix()) reuse_address(made->get(), true);
  if (auto bound = bind_near(made->get(), client, own); !bound) return bound.error();
  set_options(made->get(), client);
  Address target = name_of(listener);
  const Address before(server.name);
  if (!target.is_unix() && target.is_any()) {
    target = before;
    target.set_port(name_of(listener).port());
  }
  UniqueFd here(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (const std::string path = target.path(); !path.empty() && path.front() != '/')
    if (chdir(server.folder.c_str()) != 0) return errno_error(server.folder);
  int connected = connect(made->get(), target.get(), target.bytes);
  if (connected != 0 && !target.is_unix() && name_of(listener).is_any()) {
    target.set_host(false);
    connected = connect(made->get(), target.get(), target.bytes);
  }
  if (connected != 0) return errno_error("connecting to " + text_of(target));
  if (fchdir(here.get()) != 0) return errno_error("the current folder");
  const Address client_name = name_of(made->get());
  for (;;) {
    pollfd waiting{listener, POLLIN, 0};
    if (poll(&waiting, 1, kPatienceMs) != 1) return errno_error("a connection", ETIMEDOUT);
    Address from;
    from.bytes = sizeof from.storage;
    UniqueFd accepted(accept4(listener, from.get(), &from.bytes, SOCK_CLOEXEC));
    if (!accepted) return errno_error("a connection");
    const bool is_ours = target.is_unix() ? true : from.port() == client_name.port();
    if (!is_ours) continue;
    set_options(accepted.get(), server);
    return Pair{std::move(accepted), std::move(*made)};
  }
}

Result<Pair> make_pair_by_name(const FamilySocket& server, const FamilySocket& client) {
  auto listener = new_socket(server);
  if (!listener) return listener.error();
  const Address address(server.name);
  if (!address.is_unix()) reuse_address(listener->get(), true);
  if (auto bound = bind_near(listener->get(), server, address); !bound) return bound.error();
  if (listen(listener->get(), 1) != 0) return errno_error("listening");
  return connect_by(listener->get(), server, client);
}

Result<Pair> make_pair(const FamilySocket& a, const FamilySocket& b) {
  int ends[2];
  if (socketpair(a.domain, a.type | SOCK_CLOEXEC, a.protocol, ends) != 0)
    return errno_error("socketpair");
  Pair made{UniqueFd(ends[0]), UniqueFd(ends[1])};
  set_options(ends[0], a);
  set_options(ends[1], b);
  return made;
}

// What stands for the peer of a socket whose own is gone.
FamilySocket peer_of(const FamilySocket& socket) {
  FamilySocket peer;
  peer.domain = socket.domain;
  peer.type = socket.type;
  peer.protocol = socket.protocol;
  Address address(socket.name);
  if (!address.is_unix()) {
    address.set_host(false);
    address.set_port(0);
    peer.name.assign(reinterpret_cast<const char*>(&address.storage), address.bytes);
  }
  return peer;
}

}  // namespace

RestartSockets RestartSockets::parse(const json& all) {
  RestartSockets parsed;
  for (const json& one : all) {
    FamilySocket socket;
    socket.state = static_cast<State>(one.value("state", 0u));
    socket.domain = one.value("domain", 0);
    socket.type = one.value("type", 0);
    socket.protocol = one.value("protocol", 0);
    socket.backlog = one.value("backlog", 0);
    socket.peer = one.value("peer", FamilySocket::kNone);
    socket.name = from_hex(one.value("name", std::string()));
    socket.peer_name = from_hex(one.value("peer_name", std::string()));
    socket.folder = one.value("folder", std::string());
    for (const json& option : one.value("options", json::array())) {
      const std::string value = from_hex(option.at(2).get<std::string>());
      SocketOption known{option.at(0), option.at(1), static_cast<uint32_t>(value.size()), {}};
      value.copy(known.value.data(), known.value.size());
      socket.options.push_back(known);
    }
    parsed.sockets.push_back(std::move(socket));
  }
  return parsed;
}

Result<RestartSockets::Made> RestartSockets::make() const {
  Made made;
  made.sockets.resize(sockets.size());
  for (size_t i = 0; i < sockets.size(); ++i) {
    if (sockets[i].state == State::kConnected) continue;
    auto one = sockets[i].state == State::kListening ? make_listener(sockets[i])
                                                     : make_unconnected(sockets[i]);
    if (!one) return one.error();
    made.sockets[i] = std::move(*one);
  }
  const auto listener_of = [&](const FamilySocket& socket) {
    const Address name(socket.name);
    for (size_t i = 0; i < sockets.size(); ++i) {
      if (sockets[i].state != State::kListening || sockets[i].domain != socket.domain) continue;
      const Address its(sockets[i].name);
      const bool is_same = name.is_unix() ? name.has_name() && sockets[i].name == socket.name
                                          : its.port() == name.port() &&
                                                (its.is_any() || sockets[i].name == socket.name);
      if (is_same) return made.sockets[i].get();
    }
    return -1;
  };
  for (size_t i = 0; i < sockets.size(); ++i) {
    if (sockets[i].state != State::kConnected) continue;
    const bool is_alone = sockets[i].peer == FamilySocket::kNone;
    const FamilySocket other = is_alone ? peer_of(sockets[i]) : sockets[sockets[i].peer];
    if (!is_alone && sockets[i].peer < i) continue;
    const FamilySocket& own = sockets[i];
    const bool has_names = Address(own.name).has_name() || Address(other.name).has_name();
    const bool accepts = listener_of(other) < 0 || listener_of(own) >= 0;  // `own` does
    const FamilySocket& server = accepts ? own : other;
    const FamilySocket& client = accepts ? other : own;
    const int listener = listener_of(server);
    auto pair = !has_names || own.type == SOCK_DGRAM ? make_pair(server, client)
                : listener >= 0                      ? connect_by(listener, server, client)
                                                     : make_pair_by_name(server, client);
    if (!pair) return pair.error();
    made.sockets[i] = std::move(accepts ? pair->server : pair->client);
    UniqueFd& end = accepts ? pair->client : pair->server;
    if (is_alone)
      made.other_ends.push_back(std::move(end));
    else
      made.sockets[own.peer] = std::move(end);
  }
  return made;
}

}  // namespace krg
