// ChildNews: SIGCHLD to a process of this node about a child that another node's kernel has told
// of, with all that is said there: how it ended, stopped or goes on, and whose it was. No other
// process may send a signal that says so (rt_sigqueueinfo(2)): it is made to say it on its way to
// its handler, or, where it is blocked, the process sends it itself.
//
// Where neither can be done (a debugger has the process, a fork of it is under way) it is a signal
// of the sender's name without the rest. Threads: the loop's thread. Owned by Signals.
// Source: ptrace(2), signal-delivery-stop; kernel/signal.c of Linux 6.1.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <csignal>
#include <memory>

#include "krg/procmgr/node_context.h"
#include "stand_in.h"

namespace krg {

class ChildNews {
 public:
  explicit ChildNews(NodeContext& node);
  ~ChildNews();
  ChildNews(const ChildNews&) = delete;
  ChildNews& operator=(const ChildNews&) = delete;

  // `info`: a SIGCHLD as that kernel has it. One that waits in the process already is not joined by
  // a second one, as ever. Errors: ESRCH, as far as that is known at once.
  Status tell(pid_t process, const siginfo_t& info, const Sender& sender);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with what is under way
};

}  // namespace krg
