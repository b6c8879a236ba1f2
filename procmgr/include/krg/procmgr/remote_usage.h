// RemoteUsage: what children used that executed on other nodes shows in getrusage(RUSAGE_CHILDREN),
// times(2), and in the usage that wait4(2) and waitid(2) report.
//
// The kernel answers for what ran here; krgd adds the rest to the answer in the caller's memory: it
// seizes the thread by ptrace for that one call, lets the kernel carry it out, adds, and lets go.
// A wait that blocks is not held: when it is interrupted by anything, krgd lets go and meets the
// call again at its restart. Processes without remote children are never touched, nor those that
// another tracer has (they see what ran here).
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/resource.h>

#include <memory>
#include <optional>

#include "krg/procmgr/child_reaper.h"
#include "krg/procmgr/syscall_broker.h"

namespace krg {

class RemoteUsage {
 public:
  RemoteUsage(SyscallBroker& broker, ChildReaper& reaper);
  ~RemoteUsage();
  RemoteUsage(const RemoteUsage&) = delete;
  RemoteUsage& operator=(const RemoteUsage&) = delete;

  // The body of `shadow`, a shadow of this node, has ended and used so much.
  // REQUIRES: called before the shadow is told to end.
  void body_ended(pid_t shadow, const struct rusage& usage);
  // For who traces a process otherwise, whose calls are left alone here: what is to be added to its
  // RUSAGE_CHILDREN, or to the usage of a child that it has just waited for. None: nothing.
  std::optional<struct rusage> of_children(pid_t pid);
  std::optional<struct rusage> of_waited_child(pid_t pid, pid_t child);
  // What the ended body `pid` of this node is to be charged for beside what the kernel counted: its
  // children that executed on yet other nodes.
  std::optional<struct rusage> close(pid_t pid);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Adds times and counts; the resident set's peak is the greater one.
void add_usage(struct rusage& sum, const struct rusage& more);

}  // namespace krg
