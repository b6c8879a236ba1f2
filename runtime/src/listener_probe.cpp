// SPDX-License-Identifier: GPL-2.0-or-later
#include "listener_probe.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "ipv4_address.h"

namespace krg {

ListenerProbe::ListenerProbe(EventLoop& loop, const std::string& address,
                             std::function<void()> refused) {
  const auto peer = ipv4_address(address);
  if (!peer) return;
  connection_ = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!connection_) return;
  // The answer, also one that has come already, is asked for when the loop says that there is one.
  connect(connection_.get(), reinterpret_cast<const sockaddr*>(&*peer), sizeof *peer);
  auto watch = loop.watch(connection_.get(), EPOLLOUT | EPOLLONESHOT,
                          [fd = connection_.get(), refused = std::move(refused)](uint32_t) {
                            int answer = 0;
                            socklen_t length = sizeof answer;
                            getsockopt(fd, SOL_SOCKET, SO_ERROR, &answer, &length);
                            if (answer == ECONNREFUSED) refused();
                          });
  if (watch) watch_ = std::move(*watch);
}

}  // namespace krg
