// Which sockets of a family belong together. SPDX-License-Identifier: GPL-2.0-or-later
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>

#include "family/socket_state.h"

namespace krg {
namespace {

bool is_loopback(std::string_view address) {
  if (address.size() >= sizeof(sockaddr_in)) {
    sockaddr_in internet;
    memcpy(&internet, address.data(), sizeof internet);
    if (internet.sin_family == AF_INET) return (ntohl(internet.sin_addr.s_addr) >> 24) == 127;
  }
  if (address.size() < sizeof(sockaddr_in6)) return false;
  sockaddr_in6 internet;
  memcpy(&internet, address.data(), sizeof internet);
  return IN6_IS_ADDR_LOOPBACK(&internet.sin6_addr) != 0;
}

bool are_ends(const FamilySocket& a, const SocketIdentity& of_a, const FamilySocket& b,
              const SocketIdentity& of_b) {
  if (a.domain != b.domain || a.type != b.type) return false;
  if (a.domain == AF_UNIX)
    return a.node == b.node && of_a.peer_inode == of_b.inode && of_b.peer_inode == of_a.inode;
  return a.name == b.peer_name && b.name == a.peer_name &&
         (a.node == b.node || !is_loopback(a.name));
}

// Which of what `from` has written `to` has not got.
Status settle_output(FamilySocket& from, const SocketIdentity& of_from, const SocketIdentity& of_to,
                     uint32_t unsent) {
  uint32_t missing = 0;
  if (of_from.has_sequence && of_to.has_sequence) {
    missing = of_from.written - of_to.received;
    if (missing > of_from.queued)
      return errno_error(describe_address(from.name) + ": what it has sent is on its way", EAGAIN);
  }
  from.unsent_bytes = unsent - of_from.queued + missing;
  return {};
}

}  // namespace

Status pair_sockets(std::vector<FamilySocket>& sockets,
                    const std::vector<SocketIdentity>& identities) {
  std::multimap<std::string, uint32_t> by_name;
  std::map<std::pair<uint32_t, uint64_t>, uint32_t> by_inode;
  for (uint32_t i = 0; i < sockets.size(); ++i) {
    if (sockets[i].state != FamilySocket::State::kConnected) continue;
    by_name.emplace(sockets[i].name, i);
    by_inode[{sockets[i].node, identities[i].inode}] = i;
  }
  for (uint32_t i = 0; i < sockets.size(); ++i) {
    FamilySocket& socket = sockets[i];
    if (socket.state != FamilySocket::State::kConnected || socket.peer != FamilySocket::kNone)
      continue;
    std::vector<uint32_t> candidates;
    if (socket.domain == AF_UNIX) {
      const auto known = by_inode.find({socket.node, identities[i].peer_inode});
      if (known != by_inode.end()) candidates.push_back(known->second);
    } else {
      const auto [first, last] = by_name.equal_range(socket.peer_name);
      for (auto named = first; named != last; ++named) candidates.push_back(named->second);
    }
    for (uint32_t other : candidates) {
      FamilySocket& peer = sockets[other];
      if (other == i || !are_ends(socket, identities[i], peer, identities[other])) continue;
      socket.peer = other;
      peer.peer = i;
      const auto settle = [&](uint32_t from, uint32_t to) {
        const auto unsent = sockets[from].unsent_bytes;
        return settle_output(sockets[from], identities[from], identities[to], unsent);
      };
      if (auto settled = settle(i, other); !settled) return settled;
      if (auto settled = settle(other, i); !settled) return settled;
      break;
    }
    if (socket.peer != FamilySocket::kNone) continue;
    if (socket.type == SOCK_DGRAM && socket.domain == AF_UNIX) {
      // It sends to a name; whoever has that may be another one.
      if (!socket.contents.empty()) return errno_error("packets in flight", ENOTSUP);
      socket.state = FamilySocket::State::kUnconnected;
      continue;
    }
    constexpr uint32_t kBoth = FamilySocket::kEndedReading | FamilySocket::kEndedWriting;
    socket.is_lost = socket.domain == AF_UNIX
                         ? identities[i].peer_inode != 0 && (socket.ended & kBoth) != kBoth
                         : (socket.ended & FamilySocket::kEndedReading) == 0;
  }
  return {};
}

std::string describe_address(std::string_view address) {
  sockaddr_storage storage{};
  memcpy(&storage, address.data(), std::min(address.size(), sizeof storage));
  char text[INET6_ADDRSTRLEN] = {};
  if (storage.ss_family == AF_INET) {
    const auto& internet = reinterpret_cast<const sockaddr_in&>(storage);
    inet_ntop(AF_INET, &internet.sin_addr, text, sizeof text);
    return fmt::format("{}:{}", text, ntohs(internet.sin_port));
  }
  if (storage.ss_family == AF_INET6) {
    const auto& internet = reinterpret_cast<const sockaddr_in6&>(storage);
    inet_ntop(AF_INET6, &internet.sin6_addr, text, sizeof text);
    return fmt::format("[{}]:{}", text, ntohs(internet.sin6_port));
  }
  constexpr size_t kPathAt = offsetof(sockaddr_un, sun_path);
  if (address.size() <= kPathAt) return "a unix socket without a name";
  std::string path(address.substr(kPathAt));
  if (path.front() == '\0') return "@" + path.substr(1);
  return path.substr(0, path.find('\0'));
}

std::string describe_socket_for_people(const FamilySocket& socket) {
  const std::string kind = socket.domain == AF_UNIX     ? "unix"
                           : socket.type == SOCK_STREAM ? "TCP"
                                                        : "UDP";
  std::string text = kind + " " + describe_address(socket.name);
  if (socket.state == FamilySocket::State::kListening) text += ", listening";
  if (!socket.peer_name.empty()) text += " to " + describe_address(socket.peer_name);
  return text;
}

}  // namespace krg
