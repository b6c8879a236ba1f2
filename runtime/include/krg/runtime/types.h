// The strong types that every folder speaks: a node, a process of the cluster, an address in
// another process. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <functional>

namespace krg {

// A node of the cluster, 0-based. An MPI rank becomes a NodeId inside the MPI transport only.
struct NodeId {
  uint16_t value = 0;
  auto operator<=>(const NodeId&) const = default;
};
inline constexpr NodeId kNoNode{0xffff};

// A process id that names one process in the whole cluster. It is the kernel's pid inside the
// session's PID namespaces; the node of birth is its upper bits (procmgr/pid_range.h).
struct GlobalPid {
  pid_t value = 0;
  auto operator<=>(const GlobalPid&) const = default;
};

// An address inside another process; never a pointer that could be followed by mistake.
struct RemoteAddr {
  uint64_t value = 0;
  auto operator<=>(const RemoteAddr&) const = default;
  RemoteAddr operator+(uint64_t bytes) const { return {value + bytes}; }
};

}  // namespace krg

template <>
struct std::hash<krg::NodeId> {
  size_t operator()(krg::NodeId n) const noexcept { return std::hash<uint16_t>{}(n.value); }
};
template <>
struct std::hash<krg::GlobalPid> {
  size_t operator()(krg::GlobalPid p) const noexcept { return std::hash<pid_t>{}(p.value); }
};
