// SPDX-License-Identifier: GPL-2.0-or-later
#include "virtual_network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>

#include <fstream>
#include <thread>

#include "namespaces.h"
#include "netlink.h"

namespace krg {
namespace {

constexpr uint32_t kFirstAddress = 0xc612'0001;  // 198.18.0.1
constexpr uint8_t kPrefixBits = 16;

// unshare(2) of a network namespace concerns the calling thread alone, so a short-lived one makes
// it.
Result<UniqueFd> make_network_namespace() {
  Result<UniqueFd> made = UniqueFd();
  std::thread([&made] {
    if (unshare(CLONE_NEWNET) != 0) {
      made = errno_error("unshare(CLONE_NEWNET)");
      return;
    }
    UniqueFd fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (fd)
      made = std::move(fd);
    else
      made = errno_error("/proc/thread-self/ns/net");
  }).join();
  return made;
}

// Linux's own range of ports for sockets that name none, of which each node gets a part: what
// listens on one node has its port on all of them (loopback_listeners.h).
constexpr unsigned kFirstPort = 32768, kPorts = 28232, kLeastPorts = 1000;

void share_ports_out(unsigned node, unsigned nodes) {
  const unsigned ports = kPorts / nodes;
  if (ports < kLeastPorts) return;
  // Where it cannot be changed (/proc/sys is read-only), a port may be taken elsewhere.
  std::ofstream range("/proc/sys/net/ipv4/ip_local_port_range");
  range << kFirstPort + node * ports << ' ' << kFirstPort + (node + 1) * ports - 1 << std::flush;
}

Status configure_node(uint32_t address) {
  auto netlink = NetlinkSocket::open();
  if (!netlink) return netlink.error();
  if (auto up = netlink->set_up("lo"); !up) return up;
  if (auto added = netlink->add_ipv4("eth0", address, kPrefixBits); !added) return added;
  return netlink->set_up("eth0");
}

Result<UniqueFd> add_node(NetlinkSocket& netlink, unsigned node, unsigned nodes) {
  auto space = make_network_namespace();
  if (!space) return space.error();
  const std::string port = "port" + std::to_string(node);
  if (auto done = netlink.add_veth(port, "eth0", space->get()); !done) return done.error();
  if (auto done = netlink.set_master(port, "nodes"); !done) return done.error();
  if (auto done = netlink.set_up(port); !done) return done.error();
  auto configured = in_namespace(space->get(), CLONE_NEWNET, [node, nodes] {
    share_ports_out(node, nodes);
    return configure_node(kFirstAddress + node);
  });
  if (!configured) return configured.error();
  return std::move(*space);
}

}  // namespace

Result<VirtualNetwork> VirtualNetwork::create(unsigned nodes) {
  check(nodes <= kMaxVirtualNodes, "the bridge has a port for each node");
  auto netlink = NetlinkSocket::open();
  if (!netlink) return netlink.error();
  if (auto up = netlink->set_up("lo"); !up) return up.error();
  if (auto added = netlink->add_bridge("nodes"); !added) return added.error();
  if (auto up = netlink->set_up("nodes"); !up) return up.error();
  VirtualNetwork network;
  for (unsigned node = 0; node < nodes; ++node) {
    auto space = add_node(*netlink, node, nodes);
    if (!space) return space.error();
    network.nodes_.push_back(std::move(*space));
  }
  return network;
}

std::string VirtualNetwork::address_of(unsigned node) {
  in_addr address{htonl(kFirstAddress + node)};
  char text[INET_ADDRSTRLEN];
  inet_ntop(AF_INET, &address, text, sizeof text);
  return text;
}

}  // namespace krg
