// PidCalls: the system calls that name one other process (kill, prlimit64, sched_setscheduler, …),
// when that process executes on another node: carried out there, in the caller's name, by the
// kernel of that node, which checks permissions and fills in the sender of a signal. What cannot
// work from afar (ptrace, kcmp, pidfd_open) is refused with EREMOTE: ESRCH would be a lie.
// procmgr/SIGNALS.md has the whole table.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "krg/procmgr/process_table.h"
#include "krg/procmgr/syscall_broker.h"

namespace krg {

class PidCalls {
 public:
  // Registers the handlers of all of them but kill (Signals) and sched_{get,set}affinity
  // (ClusterView), which come here where they name a process of another node.
  PidCalls(NodeContext& node, SyscallBroker& broker, ProcessTable& table);
  ~PidCalls();
  PidCalls(const PidCalls&) = delete;
  PidCalls& operator=(const PidCalls&) = delete;

  // How masks of processors, which programs have by the cluster's numbers, are this node's, and
  // back. None: none of them is this node's.
  struct ProcessorMasks {
    std::function<std::optional<std::string>(const std::string&)> of_node;
    std::function<std::string(const std::string&)> of_cluster;
    // Has a process of this node go to the node that a mask is of; it is told whether it went.
    std::function<void(pid_t, const std::string&, std::function<void(bool)>)> move;
  };
  void set_masks(ProcessorMasks masks);

  // Carries `call`, whose pid argument is positive, out where that process executes: on this node
  // the kernel does it as it stands.
  void forward(SyscallBroker::Call call);
  // Lets the kernel carry `call` out where it concerns a process of this node, else hands it to
  // `elsewhere`, with the node where the process executes. It fails with ESRCH where there is none.
  using Elsewhere = std::function<void(SyscallBroker::Call, NodeId)>;
  void route(SyscallBroker::Call call, pid_t pid, Elsewhere elsewhere);
  // Carries pidfd_send_signal(2) out whose descriptor stands for `pid` without being a pidfd of
  // this kernel: a directory /proc/PID of krgfs (killall opens those).
  void signal_by_pidfd(SyscallBroker::Call call, pid_t pid);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with calls under way
};

}  // namespace krg
