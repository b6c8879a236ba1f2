// Signals: kill(2) over the whole cluster.
//
// - One process: where it executes (PidCalls).
// - A group: the truth is on the node whose pid names it. There one native kill reaches the native
//   members and the shadows; a shadow passes the signal on to its body's node, where it reaches
//   the kernel group that the body leads, and so on down. SIGKILL, SIGSTOP and SIGCONT are sent to
//   the bodies' nodes by krgd: a shadow cannot pass them on, or not in their order.
// - The caller's own group, when it is led from outside of the session (krgrun's group): the job's
//   processes in it; never krgrun nor what stands beside it in a pipeline.
// - Everybody (-1): on each node, one by one, whatever the caller may signal; never krgd, a shadow
//   or the caller.
//
// A native kill that must reach shadows is krgd's own: its receivers see si_pid 1. All others see
// the sender. Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "krg/procmgr/job_namespaces.h"
#include "krg/procmgr/pid_calls.h"
#include "krg/procmgr/shadow_host.h"

namespace krg {

class Signals {
 public:
  Signals(NodeContext& node, SyscallBroker& broker, ProcessTable& table, JobNamespaces& jobs,
          PidCalls& pid_calls);
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // Hands a signal that reached the shadow of `body`, which executes here, on: to the body alone in
  // the sender's name, or, when it was directed to the shadow's group, to the kernel group that the
  // body leads.
  // Errors: ESRCH.
  Status signal_body(pid_t body, const SignalInfo& signal);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with calls under way
};

}  // namespace krg
