// What a stopped clone(2) or clone3(2) is about to make. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sched.h>
#include <sys/syscall.h>

#include <cstdint>
#include <cstring>

#include "krg/procmgr/syscall_broker.h"

namespace krg {

// Something that shares its maker's memory. Not where the call's arguments cannot be read.
inline bool shares_memory(const SyscallBroker::Call& call) {
  if (call.number() == SYS_clone) return (call.arg(0) & CLONE_VM) != 0;
  if (call.number() != SYS_clone3) return false;
  uint64_t flags = 0;
  auto arguments = call.read_memory(RemoteAddr{call.arg(0)}, sizeof flags);
  if (!arguments) return false;
  std::memcpy(&flags, arguments->data(), sizeof flags);
  return (flags & CLONE_VM) != 0;
}

}  // namespace krg
