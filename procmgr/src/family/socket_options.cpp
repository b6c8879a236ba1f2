// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/socket_options.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstring>
#include <utility>

#include "socket_option.h"

namespace krg {
namespace {

struct OptionName {
  int level, name;
};
// SO_SNDBUF and SO_RCVBUF are their own matter: the kernel chooses them where nobody did.
constexpr OptionName kOptions[] = {
    {SOL_SOCKET, SO_REUSEADDR}, {SOL_SOCKET, SO_REUSEPORT},      {SOL_SOCKET, SO_KEEPALIVE},
    {SOL_SOCKET, SO_BROADCAST}, {SOL_SOCKET, SO_OOBINLINE},      {SOL_SOCKET, SO_LINGER},
    {SOL_SOCKET, SO_RCVTIMEO},  {SOL_SOCKET, SO_SNDTIMEO},       {SOL_SOCKET, SO_PASSCRED},
    {SOL_SOCKET, SO_RCVLOWAT},  {IPPROTO_IPV6, IPV6_V6ONLY},     {IPPROTO_IP, IP_TOS},
    {IPPROTO_TCP, TCP_NODELAY}, {IPPROTO_TCP, TCP_KEEPIDLE},     {IPPROTO_TCP, TCP_KEEPINTVL},
    {IPPROTO_TCP, TCP_KEEPCNT}, {IPPROTO_TCP, TCP_USER_TIMEOUT},
};

bool applies(int domain, int protocol, const OptionName& option) {
  if (option.level == SOL_SOCKET) return true;
  if (option.level == IPPROTO_TCP) return protocol == IPPROTO_TCP;
  return domain == (option.level == IPPROTO_IPV6 ? AF_INET6 : AF_INET);
}

}  // namespace

std::vector<SocketOption> socket_options(int fd, int domain, int protocol) {
  std::vector<SocketOption> options;
  for (const OptionName& each : kOptions) {
    if (!applies(domain, protocol, each)) continue;
    SocketOption option{each.level, each.name, 0, {}};
    socklen_t bytes = option.value.size();
    if (getsockopt(fd, each.level, each.name, option.value.data(), &bytes) != 0) continue;
    option.bytes = bytes;
    options.push_back(option);
  }
  // The kernel doubles what it is told (socket(7)); which of them it was told, SO_BUF_LOCK knows.
  const int chosen = socket_option(fd, SOL_SOCKET, SO_BUF_LOCK);
  for (const auto& [bit, name] : {std::pair(1, SO_SNDBUF), std::pair(2, SO_RCVBUF)}) {
    if (chosen <= 0 || (chosen & bit) == 0) continue;
    SocketOption option{SOL_SOCKET, name, sizeof(int), {}};
    const int value = socket_option(fd, SOL_SOCKET, name) / 2;
    memcpy(option.value.data(), &value, sizeof value);
    options.push_back(option);
  }
  return options;
}

}  // namespace krg
