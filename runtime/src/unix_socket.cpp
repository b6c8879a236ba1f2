// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/unix_socket.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace krg {
namespace {

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return errno_error("socket path " + path, ENAMETOOLONG);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

}  // namespace

Result<UniqueFd> listen_seqpacket(const std::string& path, mode_t mode) {
  auto address = address_of(path);
  if (!address) return address.error();
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return errno_error("socket");
  unlink(path.c_str());
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&*address), sizeof *address) != 0)
    return errno_error("bind " + path);
  if (chmod(path.c_str(), mode) != 0) return errno_error("chmod " + path);
  if (listen(fd.get(), 128) != 0) return errno_error("listen " + path);
  return fd;
}

Result<UniqueFd> connect_seqpacket(const std::string& path) {
  auto address = address_of(path);
  if (!address) return address.error();
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd) return errno_error("socket");
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&*address), sizeof *address) != 0)
    return errno_error("connect " + path);
  return fd;
}

Result<UniqueFd> accept_connection(int listener) {
  UniqueFd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd) return errno_error("accept");
  return fd;
}

Result<FdPair> seqpacket_pair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0)
    return errno_error("socketpair");
  return FdPair{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

Status send_packet(int socket, std::string_view bytes, std::span<const int> fds) {
  check(fds.size() <= kMaxPacketFds && bytes.size() <= kMaxPacketBytes,
        "a packet keeps its limits");
  iovec vector{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPacketFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  ssize_t sent;
  do sent = sendmsg(socket, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) return errno_error("sendmsg");
  return {};
}

std::vector<UniqueFd> received_fds(msghdr& message) {
  std::vector<UniqueFd> fds;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      fds.emplace_back(fd);
    }
  }
  return fds;
}

Result<Packet> receive_packet(int socket) {
  Packet packet;
  packet.bytes.resize(kMaxPacketBytes);
  iovec vector{packet.bytes.data(), packet.bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPacketFds * sizeof(int))];
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got;
  do got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0) return errno_error("recvmsg");
  packet.fds = received_fds(message);
  packet.bytes.resize(static_cast<size_t>(got));
  packet.bytes.shrink_to_fit();
  packet.end_of_stream = got == 0 && packet.fds.empty();
  if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
    return errno_error("packet over its limits", EMSGSIZE);
  return packet;
}

Result<ucred> peer_credentials(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
    return errno_error("SO_PEERCRED");
  return credentials;
}

}  // namespace krg
