// NetlinkSocket: the few rtnetlink(7) requests that virtual nodes need, each acknowledged by the
// kernel. A socket acts on the network namespace in which it was opened.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <string>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class NetlinkSocket {
 public:
  static Result<NetlinkSocket> open();

  Status add_bridge(const std::string& name);
  // A pair: `name` here, `peer` in the network namespace `peer_namespace` (a descriptor).
  Status add_veth(const std::string& name, const std::string& peer, int peer_namespace);
  // Makes `port` a port of bridge `bridge`.
  Status set_master(const std::string& port, const std::string& bridge);
  Status set_up(const std::string& name);
  // `address`: in host byte order.
  Status add_ipv4(const std::string& name, uint32_t address, uint8_t prefix_bits);

 private:
  explicit NetlinkSocket(UniqueFd socket) : socket_(std::move(socket)) {}
  class Request;
  Status talk(const Request& request, const std::string& what);
  UniqueFd socket_;
};

}  // namespace krg
