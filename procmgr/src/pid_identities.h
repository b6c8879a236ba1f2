// PidIdentities: who the parent, group, session and terminal of a process are in the cluster, where
// this node's kernel does not know: for bodies and for what descends from them here. A body's
// relatives are its shadow's, so the shadow's node is asked; that node may have to ask on, when the
// shadow itself lives in another body's group.
//
// Threads: the loop's thread. Owned by ProcView.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/process_table.h"
#include "pid_texts.h"
#include "plain_files.h"

namespace krg {

// When this node booted, in nanoseconds since 1970, by its own clock. Taken once, so that start
// times do not wander when the clock is adjusted.
int64_t boot_epoch_ns();

class PidIdentities {
 public:
  using Identities = std::map<pid_t, PidIdentity>;

  // `proc`: the session's procfs. `own_boot_epoch_ns`: boot_epoch_ns() of this node.
  PidIdentities(NodeContext& node, ProcessTable& table, PlainFiles proc, int64_t own_boot_epoch_ns);
  ~PidIdentities();
  PidIdentities(const PidIdentities&) = delete;
  PidIdentities& operator=(const PidIdentities&) = delete;

  // True when the kernel's relatives of this process or thread are not the cluster's.
  bool differs_from_kernel(pid_t pid) const;
  // The identities of processes that execute here, or whose shadows are here; those that are gone
  // are missing.
  void resolve(std::vector<pid_t> pids, std::function<void(Identities)> done);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // answers that come late hold it weakly
};

}  // namespace krg
