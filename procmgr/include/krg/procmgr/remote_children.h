// RemoteChildren: wait4 and waitid of a process that has moved away from its children. They stay
// where they are, children of its shadow; the shadow waits for them on its behalf, and their
// changes are carried to it. Its native children, forked since, are the kernel's business: a wait
// goes on there as soon as one of them has ended.
//
// Weaker than native: while a process has children of both kinds, a blocking wait with WUNTRACED or
// WCONTINUED does not notice that a native one stops or goes on; ignoring SIGCHLD after the move
// does not make the children at the origin vanish by themselves.
//
// Threads: the loop's thread. Owned by krgd's main. Source: wait(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "krg/procmgr/process_table.h"
#include "krg/procmgr/syscall_broker.h"

namespace krg {

class RemoteChildren {
 public:
  // Takes the waits of bodies that have left children at their origin.
  // `process_of_pidfd`: Descriptors::process_of_pidfd().
  using ProcessOfPidfd = std::function<std::optional<pid_t>(pid_t tid, int number)>;
  RemoteChildren(NodeContext& node, SyscallBroker& broker, ProcessTable& table,
                 ProcessOfPidfd process_of_pidfd);
  ~RemoteChildren();
  RemoteChildren(const RemoteChildren&) = delete;
  RemoteChildren& operator=(const RemoteChildren&) = delete;

  // A body is about to get SIGCHLD from its origin.
  void child_changed(pid_t body);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with questions under way
};

}  // namespace krg
