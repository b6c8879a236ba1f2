// SPDX-License-Identifier: GPL-2.0-or-later
#include "socket_closes.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace krg {

SocketCloses::SocketCloses(EventLoop& loop, std::function<void()> closed)
    : closed_(std::move(closed)),
      socket_(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG)) {
  sockaddr_nl groups{};
  groups.nl_family = AF_NETLINK;
  groups.nl_groups = 1u << (SKNLGRP_INET_TCP_DESTROY - 1) | 1u << (SKNLGRP_INET6_TCP_DESTROY - 1);
  if (!socket_ || bind(socket_.get(), reinterpret_cast<sockaddr*>(&groups), sizeof groups) != 0)
    return;
  if (auto watch = loop.watch(socket_.get(), EPOLLIN, [this](uint32_t) { on_events(); }))
    watch_ = std::move(*watch);
}

void SocketCloses::on_events() {
  bool may_have_listened = false;
  struct {
    nlmsghdr header;
    inet_diag_msg socket;
    char attributes[512];
  } message;
  constexpr ssize_t kLeast = sizeof message.header + sizeof message.socket;
  for (;;) {
    const ssize_t got = recv(socket_.get(), &message, sizeof message, 0);
    if (got < 0 && errno != ENOBUFS) break;
    const bool were_lost = got < 0;
    may_have_listened |= were_lost || (got >= kLeast && message.socket.id.idiag_dport == 0);
  }
  const auto closed = closed_;
  if (may_have_listened) closed();
}

}  // namespace krg
