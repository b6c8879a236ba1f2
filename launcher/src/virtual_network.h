// VirtualNetwork: the wires between virtual nodes. A bridge in the network namespace of the calling
// process, and for each node a network namespace of its own that is joined to it by a veth pair:
// node i is 198.18.(i+1)/16 (RFC 2544's benchmark range: never a real host). Spoken to the kernel
// by rtnetlink(7).
//
// Owned by krg_host; single-threaded. The network goes with the namespaces.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

inline constexpr unsigned kMaxVirtualNodes = 1000;  // ports of one bridge (BR_MAX_PORTS is 1024)

class VirtualNetwork {
 public:
  // REQUIRES: the calling process is alone in its network namespace and has CAP_NET_ADMIN there.
  // Errors: what the kernel refuses, naming the step (no bridge or veth support, for one).
  static Result<VirtualNetwork> create(unsigned nodes);
  // A descriptor of node i's network namespace.
  int namespace_of(unsigned node) const { return nodes_[node].get(); }

  static std::string address_of(unsigned node);
  static constexpr const char* kSubnet = "198.18.0.0/16";

 private:
  std::vector<UniqueFd> nodes_;
};

}  // namespace krg
