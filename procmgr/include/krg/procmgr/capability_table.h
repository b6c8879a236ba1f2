// CapabilityTable: the four capability sets of every process on this node (capabilities.h has the
// sets and rules). Explicit sets are kept by pid and start time; descendants are recognised by the
// timer slack tag that the kernel inherits over fork and exec (docs/ARCHITECTURE.md). A tag stands
// for one pair of inheritable sets; a process without tag and entry has initial_capabilities().
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <string>

#include "krg/procmgr/capabilities.h"
#include "krg/procmgr/node_context.h"

namespace krg {

class CapabilityTable {
 public:
  explicit CapabilityTable(NodeContext& node) : CapabilityTable(node.loop) {}
  explicit CapabilityTable(EventLoop& loop);
  ~CapabilityTable();
  CapabilityTable(const CapabilityTable&) = delete;
  CapabilityTable& operator=(const CapabilityTable&) = delete;

  // True when some process of this node may have DISTANT_FORK: lets an exec go on without any
  // look-up otherwise.
  bool any_distant_fork() const;
  // The sets of a process that executes here. Errors: ESRCH.
  Result<CapabilitySets> of(pid_t pid) const;
  // Changes whenever what of() says of a living process may have changed.
  uint64_t version() const;
  // Sets all four sets of a process that executes here (a job's first process, a body): no rules
  // applied. Errors: ESRCH, EPERM (no CAP_SYS_NICE over the process), ENOTSUP (a real-time thread),
  // ENOSPC (kMaxSlackTag different inheritable sets). REQUIRES: it starts no threads meanwhile.
  Status adopt(pid_t pid, const CapabilitySets& sets);
  // The same for a process that took the timer slack which slack_for() of these sets told as it
  // started (a real-time one keeps none). Errors: ESRCH.
  Status adopt_marked(pid_t pid, const CapabilitySets& sets);
  // In nanoseconds. Errors: ENOSPC, as adopt().
  Result<uint64_t> slack_for(const CapabilitySets& sets);
  // Applies a change under the original's rules. Errors: EPERM, EINVAL, EBUSY, ENOSYS, ESRCH.
  Status change(pid_t pid, const CapabilityChange& change);

  // This cluster, or this node's user, cannot have a supported capability: who makes it effective
  // is told why.
  void refuse(Capability capability, std::string why);
  // Errors: ENOSYS with the reason where `sets` have one effective that is refused.
  Status check_refused(const CapabilitySets& sets) const;

  // Marks a capability of a process as in use until the Use is destroyed: it cannot be dropped
  // meanwhile (EBUSY). REQUIRES: the table outlives the Use.
  class Use {
   public:
    Use(CapabilityTable& table, pid_t pid, Capability capability);
    Use(Use&& other) noexcept;
    Use& operator=(Use&&) = delete;
    ~Use();

   private:
    CapabilityTable* table_;
    pid_t pid_;
    Capability capability_;
  };

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
