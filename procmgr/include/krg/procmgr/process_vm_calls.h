// ProcessVmCalls: process_vm_readv(2) and process_vm_writev(2) of a process that executes on
// another node: carried out there, in the caller's name, a megabyte at a time.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/pid_calls.h"

namespace krg {

class ProcessVmCalls {
 public:
  ProcessVmCalls(NodeContext& node, SyscallBroker& broker, PidCalls& pid_calls);
  ProcessVmCalls(const ProcessVmCalls&) = delete;
  ProcessVmCalls& operator=(const ProcessVmCalls&) = delete;
};

}  // namespace krg
