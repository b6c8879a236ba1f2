// SPDX-License-Identifier: GPL-2.0-or-later
#include "netlink.h"

#include <arpa/inet.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <string_view>

namespace krg {

// One message: a netlink header, a fixed struct, and attributes, which may be nested.
class NetlinkSocket::Request {
 public:
  template <class Body>
  Request(uint16_t type, uint16_t flags, const Body& body) {
    header().nlmsg_type = type;
    header().nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
    append(&body, sizeof body);
  }

  void attribute(uint16_t type, const void* data, size_t size) {
    size_t at = begin(type);
    append(data, size);
    end(at);
  }
  void attribute(uint16_t type, std::string_view text) {
    attribute(type, text.data(), text.size());
  }
  void attribute(uint16_t type, uint32_t value) { attribute(type, &value, sizeof value); }
  // Opens a nested attribute; what follows is in it, until end(what begin() returned).
  size_t begin(uint16_t type) {
    rtattr start{0, type};
    size_t at = length_;
    append(&start, sizeof start);
    return at;
  }
  void end(size_t at) {
    auto size = static_cast<uint16_t>(length_ - at);
    std::memcpy(bytes_.data() + at, &size, sizeof size);
    length_ = RTA_ALIGN(length_);
  }
  template <class Body>
  void plain(const Body& body) {
    append(&body, sizeof body);
  }

  std::string_view message() const {
    auto size = static_cast<uint32_t>(length_);
    std::memcpy(bytes_.data(), &size, sizeof size);  // nlmsg_len
    return {bytes_.data(), length_};
  }

 private:
  nlmsghdr& header() { return *reinterpret_cast<nlmsghdr*>(bytes_.data()); }
  void append(const void* data, size_t size) {
    check(length_ + NLMSG_ALIGN(size) <= bytes_.size(), "a request fits its buffer");
    std::memcpy(bytes_.data() + length_, data, size);
    length_ += NLMSG_ALIGN(size);
  }
  alignas(nlmsghdr) mutable std::array<char, 512> bytes_{};
  size_t length_ = NLMSG_HDRLEN;
};

Result<NetlinkSocket> NetlinkSocket::open() {
  UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!fd) return errno_error("socket(AF_NETLINK)");
  return NetlinkSocket(std::move(fd));
}

Status NetlinkSocket::talk(const Request& request, const std::string& what) {
  auto message = request.message();
  if (send(socket_.get(), message.data(), message.size(), 0) < 0) return errno_error(what);
  alignas(nlmsghdr) std::array<char, 4096> answer;
  ssize_t got = recv(socket_.get(), answer.data(), answer.size(), 0);
  if (got < 0) return errno_error(what);
  nlmsghdr header;
  nlmsgerr error;
  if (got < static_cast<ssize_t>(NLMSG_LENGTH(sizeof error))) return errno_error(what, EPROTO);
  std::memcpy(&header, answer.data(), sizeof header);
  std::memcpy(&error, answer.data() + NLMSG_HDRLEN, sizeof error);
  if (header.nlmsg_type != NLMSG_ERROR) return errno_error(what, EPROTO);
  if (error.error != 0) return errno_error(what, -error.error);
  return {};
}

Status NetlinkSocket::add_bridge(const std::string& name) {
  Request request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, ifinfomsg{});
  request.attribute(IFLA_IFNAME, name);
  size_t info = request.begin(IFLA_LINKINFO);
  request.attribute(IFLA_INFO_KIND, std::string_view("bridge"));
  request.end(info);
  return talk(request, "making a network bridge");
}

Status NetlinkSocket::add_veth(const std::string& name, const std::string& peer,
                               int peer_namespace) {
  Request request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, ifinfomsg{});
  request.attribute(IFLA_IFNAME, name);
  size_t info = request.begin(IFLA_LINKINFO);
  request.attribute(IFLA_INFO_KIND, std::string_view("veth"));
  size_t data = request.begin(IFLA_INFO_DATA);
  size_t other = request.begin(VETH_INFO_PEER);
  request.plain(ifinfomsg{});
  request.attribute(IFLA_IFNAME, peer);
  request.attribute(IFLA_NET_NS_FD, static_cast<uint32_t>(peer_namespace));
  request.end(other);
  request.end(data);
  request.end(info);
  return talk(request, "making a veth pair");
}

Status NetlinkSocket::set_master(const std::string& port, const std::string& bridge) {
  ifinfomsg link{};
  link.ifi_index = static_cast<int>(if_nametoindex(port.c_str()));
  Request request(RTM_NEWLINK, 0, link);
  request.attribute(IFLA_MASTER, if_nametoindex(bridge.c_str()));
  return talk(request, "joining " + port + " to the bridge");
}

Status NetlinkSocket::set_up(const std::string& name) {
  ifinfomsg link{};
  link.ifi_index = static_cast<int>(if_nametoindex(name.c_str()));
  link.ifi_flags = IFF_UP;
  link.ifi_change = IFF_UP;
  return talk(Request(RTM_NEWLINK, 0, link), "bringing up " + name);
}

Status NetlinkSocket::add_ipv4(const std::string& name, uint32_t address, uint8_t prefix_bits) {
  ifaddrmsg body{};
  body.ifa_family = AF_INET;
  body.ifa_prefixlen = prefix_bits;
  body.ifa_index = if_nametoindex(name.c_str());
  Request request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body);
  request.attribute(IFA_LOCAL, htonl(address));
  request.attribute(IFA_ADDRESS, htonl(address));
  return talk(request, "giving " + name + " its address");
}

}  // namespace krg
