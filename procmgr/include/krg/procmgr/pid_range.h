// Which node a pid was born on: the node id is its upper bits, so that ordinary forks take
// cluster-wide unique pids. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <bit>

#include "krg/runtime/check.h"
#include "krg/runtime/types.h"

namespace krg {

inline constexpr unsigned kPidBits = 22;  // PID_MAX_LIMIT is 4194304 (proc(5))
inline constexpr unsigned kMaxLocalPidBits = 16;
inline constexpr unsigned kMinLocalPidBits = 10;
// Pids below this are never handed out anew by the kernel once the allocator has wrapped
// (RESERVED_PIDS).
inline constexpr pid_t kReservedPids = 300;

// The pids of one node: [first(), end()).
class PidRange {
 public:
  // A node has as many pids as the pid space has for it, but 1 << most_local_bits at the most.
  // REQUIRES: self < nodes <= 1 << (kPidBits - kMinLocalPidBits).
  PidRange(NodeId self, unsigned nodes, unsigned most_local_bits = kMaxLocalPidBits)
      : self_(self), shift_(local_bits(nodes, most_local_bits)) {
    check(self.value < nodes && nodes <= 1u << (kPidBits - kMinLocalPidBits),
          "the cluster fits into the pid space");
  }
  NodeId self() const { return self_; }
  unsigned shift() const { return shift_; }
  pid_t first() const { return static_cast<pid_t>(self_.value) << shift_; }
  pid_t end() const { return first() + (pid_t{1} << shift_); }
  bool is_local(GlobalPid pid) const { return pid.value >= first() && pid.value < end(); }
  // The node that `pid` was born on. REQUIRES: pid.value > 0.
  NodeId origin(GlobalPid pid) const { return NodeId{static_cast<uint16_t>(pid.value >> shift_)}; }

 private:
  static unsigned local_bits(unsigned nodes, unsigned most) {
    unsigned bits = kPidBits - static_cast<unsigned>(std::bit_width(nodes - 1));
    return bits < most ? bits : most;
  }
  NodeId self_;
  unsigned shift_;
};

}  // namespace krg
