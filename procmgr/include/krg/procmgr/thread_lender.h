// ThreadLender: how a thread that krgd traces for long (of a spread process) is borrowed to make
// system calls for krgd, where one that nobody traces is seized. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>

#include "krg/procmgr/syscall_broker.h"

namespace krg {

class RemoteSyscalls;

struct ThreadLender {
  using Borrowed = std::function<void(Result<std::shared_ptr<RemoteSyscalls>>)>;
  // Whether the thread is one of those.
  std::function<bool(pid_t tid)> has = [](pid_t) { return false; };
  // Of a call that it waits in, which then returns what the borrower says. `borrowed` runs later,
  // in the loop. Error: ESRCH, the thread died. REQUIRES: has(call.tid()).
  std::function<void(SyscallBroker::Call call, Borrowed borrowed)> lend = {};
};

}  // namespace krg
