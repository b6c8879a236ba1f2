// SPDX-License-Identifier: GPL-2.0-or-later
#include "source_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <vector>

namespace krg {
namespace {

struct Interface {
  std::string name, address;
  bool loopback;
};

Result<std::vector<Interface>> interfaces_up() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return errno_error("getifaddrs");
  std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, freeifaddrs);
  std::vector<Interface> up;
  for (const ifaddrs* i = list; i; i = i->ifa_next) {
    if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP)) continue;
    char text[INET_ADDRSTRLEN];
    const auto* address = reinterpret_cast<const sockaddr_in*>(i->ifa_addr);
    inet_ntop(AF_INET, &address->sin_addr, text, sizeof text);
    up.push_back({i->ifa_name, text, (i->ifa_flags & IFF_LOOPBACK) != 0});
  }
  return up;
}

// The interface of the default route (proc(5), /proc/net/route); empty when there is none.
std::string default_route_interface() {
  std::ifstream routes("/proc/net/route");
  std::string line;
  std::getline(routes, line);  // the column heads
  while (std::getline(routes, line)) {
    std::istringstream fields(line);
    std::string name, destination;
    fields >> name >> destination;
    if (destination == "00000000") return name;
  }
  return {};
}

}  // namespace

Result<std::string> source_address(const std::string& wanted) {
  auto up = interfaces_up();
  if (!up) return up.error();
  const std::string preferred = wanted.empty() ? default_route_interface() : wanted;
  for (const auto& i : *up)
    if (i.name == preferred || i.address == preferred) return i.address;
  in_addr parsed;
  if (inet_pton(AF_INET, wanted.c_str(), &parsed) == 1) return wanted;  // all of 127/8 is ours
  if (!wanted.empty()) return errno_error("network interface " + wanted, ENODEV);
  for (const auto& i : *up)
    if (!i.loopback) return i.address;
  if (!up->empty()) return up->front().address;
  return errno_error("no network interface with an IPv4 address is up", ENODEV);
}

}  // namespace krg
