// Identity: who is whose parent, group and session, for processes whose place in the tree is on
// another node: getppid, getpgrp, getpgid, getsid, setpgid, setsid.
//
// The truth about a body is its shadow's place at the origin. On its own node a body leads a kernel
// group of its own, in krgd's session; the descendants that it forks here inherit both, and are
// told the body's virtual group and session. A native process asks the kernel.
//
// Limits (EPERM): a process that was forked on a body's node cannot join a group of the body's
// origin other than the one that it is in.
//
// Threads: the loop's thread. Owned by krgd's main. Source: setpgid(2), setsid(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "krg/procmgr/shadow_host.h"

namespace krg {

class Identity {
 public:
  Identity(NodeContext& node, SyscallBroker& broker, ProcessTable& table, ShadowHost& shadows);
  ~Identity();
  Identity(const Identity&) = delete;
  Identity& operator=(const Identity&) = delete;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with calls under way
};

}  // namespace krg
