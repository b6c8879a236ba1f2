// CapabilityService: reads and changes the capabilities of any process of the cluster, on whichever
// node it executes, and offers that to tools as control commands:
//   capget {"pid": N}                    -> {"effective": BITS, "permitted": …,
//                                            "inheritable_effective": …, "inheritable_permitted":
//                                            …}
//   capset {"pid": N, "effective": BITS, …}  -> {}; sets that are not named stay
//   capsupported {}                      -> {"bits": BITS}
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>

#include "krg/procmgr/capability_table.h"
#include "krg/procmgr/node_context.h"
#include "krg/runtime/control_server.h"

namespace krg {

class CapabilityService {
 public:
  // On which node a process executes (ProcessTable::locate).
  using Locate = std::function<void(GlobalPid, std::function<void(Result<NodeId>)>)>;
  using Done = std::function<void(Result<CapabilitySets>)>;

  CapabilityService(NodeContext& node, CapabilityTable& table, Locate locate);
  CapabilityService(const CapabilityService&) = delete;
  CapabilityService& operator=(const CapabilityService&) = delete;

  void add_commands(ControlServer& server);
  // The sets of a process. Errors: ESRCH, EHOSTDOWN.
  void get(GlobalPid pid, Done done);
  // Changes them; `done` gets the sets that came of it. Errors: as CapabilityTable::change(), and
  // EHOSTDOWN.
  void set(GlobalPid pid, const CapabilityChange& change, Done done);

 private:
  Result<CapabilitySets> apply(pid_t pid, const CapabilityChange& change);

  NodeContext& node_;
  CapabilityTable& table_;
  Locate locate_;
};

}  // namespace krg
