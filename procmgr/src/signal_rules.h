// What a kill(2) means in the cluster: pure decisions, made from what the caller's node knows.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <variant>

#include "krg/procmgr/pid_range.h"
#include "process_status.h"

namespace krg {

struct OneProcess {};    // kill(pid > 0)
struct Everybody {};     // kill(-1)
struct OutsideGroup {};  // kill(0) in a group that is led from outside of the session
struct KernelGroup {
  pid_t group;
};  // a group whose truth is on this node
struct GroupAt {
  NodeId node;
  pid_t group;
};  // a group whose truth is on that node
// The group of the body that leads the caller's kernel group: its shadow at `node` tells which.
struct GroupOfShadow {
  NodeId node;
  pid_t body;
};
using SignalTarget =
    std::variant<OneProcess, Everybody, OutsideGroup, KernelGroup, GroupAt, GroupOfShadow>;

// What kill(pid) of a process means whose kernel group is `own_group`; `leader_origin`: where the
// shadow of the body that leads that group is, or kNoNode when none does.
SignalTarget signal_target(pid_t pid, pid_t own_group, NodeId leader_origin, const PidRange& pids,
                           NodeId self);

// kill(2): the sender's real or effective uid is the target's real or saved one, or it has
// CAP_KILL.
bool may_signal(const Credentials& sender, const Credentials& target);

// True for what a shadow cannot catch, hence cannot pass on.
bool is_uncatchable(int signal);

}  // namespace krg
