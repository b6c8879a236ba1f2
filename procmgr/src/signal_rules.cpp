// SPDX-License-Identifier: GPL-2.0-or-later
#include "signal_rules.h"

#include <linux/capability.h>

#include <csignal>

namespace krg {

SignalTarget signal_target(pid_t pid, pid_t own_group, NodeId leader_origin, const PidRange& pids,
                           NodeId self) {
  if (pid > 0) return OneProcess{};
  if (pid == -1) return Everybody{};
  if (pid == 0) {
    if (leader_origin != kNoNode) return GroupOfShadow{leader_origin, own_group};
    if (own_group == 0) return OutsideGroup{};
    return KernelGroup{own_group};
  }
  const pid_t group = -pid;
  const NodeId origin = pids.origin(GlobalPid{group});
  if (origin == self) return KernelGroup{group};
  return GroupAt{origin, group};
}

bool may_signal(const Credentials& sender, const Credentials& target) {
  if (sender.effective_capabilities >> CAP_KILL & 1) return true;
  return sender.effective_uid == target.saved_uid || sender.effective_uid == target.real_uid ||
         sender.real_uid == target.saved_uid || sender.real_uid == target.real_uid;
}

bool is_uncatchable(int signal) {
  return signal == SIGKILL || signal == SIGSTOP;
}

}  // namespace krg
