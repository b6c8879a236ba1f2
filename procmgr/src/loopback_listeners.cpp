// SPDX-License-Identifier: GPL-2.0-or-later
#include "loopback_listeners.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cstring>
#include <vector>

#include "alive.h"
#include "gather.h"
#include "home_listener.h"
#include "krg/runtime/log.h"
#include "process_fds.h"
#include "stream_replies.h"

namespace krg {
namespace {

using Call = SyscallBroker::Call;

uint64_t network_of_this_node() {
  struct stat attributes {};
  return stat("/proc/self/ns/net", &attributes) == 0 ? attributes.st_ino : 0;
}

bool is_tcp(int socket) {
  int protocol = 0;
  socklen_t size = sizeof protocol;
  return getsockopt(socket, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
         protocol == IPPROTO_TCP;
}

ListenerShape at_v4(in_addr_t address, in_port_t port) {
  ListenerShape shape;
  shape.domain = AF_INET;
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_port = port;
  place.sin_addr.s_addr = address;
  memcpy(&shape.address, &place, sizeof place);
  shape.address_bytes = sizeof place;
  return shape;
}

ListenerShape at_v6(in_port_t port) {
  ListenerShape shape;
  shape.domain = AF_INET6;
  shape.only_v6 = 1;
  sockaddr_in6 place{};
  place.sin6_family = AF_INET6;
  place.sin6_port = port;
  place.sin6_addr = in6addr_loopback;
  memcpy(&shape.address, &place, sizeof place);
  shape.address_bytes = sizeof place;
  return shape;
}

bool is_loopback(in_addr_t address) {
  return ntohl(address) >> 24 == IN_LOOPBACKNET;
}

// The loopback addresses at which clients reach a socket of this shape.
std::vector<ListenerShape> loopback_places(const ListenerShape& shape) {
  if (shape.domain == AF_INET) {
    sockaddr_in place;
    memcpy(&place, &shape.address, sizeof place);
    const in_addr_t address = place.sin_addr.s_addr;
    if (is_loopback(address)) return {at_v4(address, place.sin_port)};
    if (address == INADDR_ANY) return {at_v4(htonl(INADDR_LOOPBACK), place.sin_port)};
    return {};
  }
  sockaddr_in6 place;
  memcpy(&place, &shape.address, sizeof place);
  if (IN6_IS_ADDR_LOOPBACK(&place.sin6_addr)) return {at_v6(place.sin6_port)};
  if (IN6_IS_ADDR_V4MAPPED(&place.sin6_addr)) {
    in_addr_t address;
    memcpy(&address, &place.sin6_addr.s6_addr[12], sizeof address);
    if (is_loopback(address)) return {at_v4(address, place.sin6_port)};
  }
  if (!IN6_IS_ADDR_UNSPECIFIED(&place.sin6_addr)) return {};
  std::vector<ListenerShape> places{at_v6(place.sin6_port)};
  if (!shape.only_v6) places.push_back(at_v4(htonl(INADDR_LOOPBACK), place.sin6_port));
  return places;
}

}  // namespace

LoopbackListeners::LoopbackListeners(NodeContext& node, SyscallBroker& broker, RemoteHome& home,
                                     SocketRelays& sockets, ListenerRelays& relays)
    : node_(node),
      home_(home),
      sockets_(sockets),
      relays_(relays),
      network_(network_of_this_node()) {
  node_.messenger.on_request<LoopbackListen>(
      [this](NodeId from, const LoopbackListen& asked, std::string_view, Messenger::Reply reply) {
        auto made = listen_for(from, asked);
        if (!made) return reply.fail(made.error());
        reply.ok({reinterpret_cast<const char*>(&*made), sizeof *made});
      });
  if (node_.node_count > 1)
    broker.set_handler(SYS_listen, [this](Call call) { on_listen(std::move(call)); });
}

// krgd makes the call, by a copy of the socket: then it knows the port, and clients elsewhere find
// it listening.
void LoopbackListeners::on_listen(Call call) {
  auto socket = steal_fd(call.tid(), static_cast<int>(call.arg(0)));
  struct stat attributes {};
  if (!socket || fstat(socket->get(), &attributes) != 0 || !S_ISSOCK(attributes.st_mode) ||
      !is_tcp(socket->get()) || relays_.is_own(attributes.st_ino) ||
      relays_.source_of(attributes.st_ino))
    return call.go_on();
  if (listen(socket->get(), static_cast<int>(call.arg(1))) != 0) return call.fail(errno);
  auto shape = listener_shape_of(socket->get());
  auto waiting = shared(std::move(call));
  if (!shape) return waiting->succeed(0);
  const std::shared_ptr<void> answer(nullptr, [waiting](void*) { waiting->succeed(0); });
  for (const ListenerShape& place : loopback_places(*shape))
    for (const NodeId other : living_nodes(node_.messenger))
      if (other != node_.self) ask(other, attributes.st_ino, place, waiting->tid(), answer);
}

void LoopbackListeners::ask(NodeId other, ino_t inode, const ListenerShape& place, pid_t process,
                            std::shared_ptr<void> answer) {
  LoopbackListen asked;
  asked.network = network_;
  asked.shape = place;
  asked.listener = relays_.add_own(process, other, inode, place);
  node_.messenger.request(other, asked, {},
                          [this, other, number = asked.listener,
                           answer = std::move(answer)](Result<std::string> reply) {
                            const auto id = value_of<HomeId>(reply);
                            if (id) return relays_.set_home(number, *id);
                            relays_.drop(number);
                            if (id.error().errno_or(0) != EALREADY)
                              log_warn("sockets",
                                       "programs on n{} cannot connect to a port of this node: {}",
                                       other.value, id.error().message());
                          });
}

Result<HomeId> LoopbackListeners::listen_for(NodeId from, const LoopbackListen& asked) {
  if (asked.network == network_) return errno_error("the same network", EALREADY);
  ListenerShape shape = asked.shape;
  if (shape.domain != AF_INET && shape.domain != AF_INET6)
    return errno_error("neither IPv4 nor IPv6", EAFNOSUPPORT);
  if (shape.address_bytes > sizeof shape.address) return errno_error("an address", EINVAL);
  auto socket = listen_at(shape);
  if (!socket) return socket.error();
  fcntl(socket->get(), F_SETFL, O_NONBLOCK);
  auto listener = std::make_unique<HomeListener>(node_, home_, sockets_, std::move(*socket));
  HomeListener* const made = listener.get();
  const HomeId id = home_.add_held_by(from, std::move(listener));
  made->set_id(id);
  relays_.add_lendable(from, asked.shape, id);
  made->attach({from, 0, asked.listener}, {});
  return id;
}

}  // namespace krg
