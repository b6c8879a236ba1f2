// The addresses of libfabric's endpoints over TCP. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <netinet/in.h>

#include <cstring>
#include <optional>
#include <string>

namespace krg {

// `name`: an endpoint's, as fi_getname(3) gave it; nothing when it is not an IPv4 address.
inline std::optional<sockaddr_in> ipv4_address(const std::string& name) {
  sockaddr_in address{};
  if (name.size() < sizeof address) return std::nullopt;
  std::memcpy(&address, name.data(), sizeof address);
  if (address.sin_family != AF_INET) return std::nullopt;
  return address;
}

}  // namespace krg
