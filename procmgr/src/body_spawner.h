// BodySpawner: starts the bodies of this node: children of krgd with a pid that was given elsewhere
// (clone3 set_tid), in the session's mount namespace and their job's UTS namespace, with all that
// an ExecSpec says, under the system call filter. The child shares krgd's memory until it execs, so
// that its start costs the same however big krgd is, and neither krgd's loop nor a worker waits for
// a slow exec.
//
// Threads: the loop's thread. Owned by ExecPlacer. REQUIRES: krgd is the init of its PID namespace,
// or has CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE over it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <optional>

#include "krg/procmgr/descriptors.h"
#include "krg/procmgr/exec_spec.h"
#include "krg/procmgr/syscall_broker.h"
#include "krg/procmgr/syscall_filter.h"

namespace krg {

class BodySpawner {
 public:
  struct Request {
    pid_t pid = 0;
    ExecSpec spec;
    std::vector<ImportedFd> fds;
    int uts_ns = -1;            // the job's; -1: krgd's own
    bool has_children = false;  // at its origin (SyscallFilterConfig::all_waits)
    // A kernel session that is not krgd's: where the scheduler shares processors out by sessions
    // (sched(7), autogroups), krgd is not kept waiting because this process computes.
    bool own_session = false;
    // It keeps the privilege to choose its threads' ids over its exec (CAP_CHECKPOINT_RESTORE).
    bool chooses_thread_ids = false;
    std::optional<uint64_t> timer_slack_ns;  // what it begins with (prctl(2)); else krgd's
    // Runs as soon as the process exists: before krgd hears of any of its system calls and, where
    // it waits, before it execs.
    std::function<void()> on_created;
    bool waits = false;
  };

  BodySpawner(NodeContext& node, SyscallBroker& broker);
  ~BodySpawner();
  BodySpawner(const BodySpawner&) = delete;
  BodySpawner& operator=(const BodySpawner&) = delete;

  // `done` gets 0 when the body executes its program, or the errno of its exec; an error when it
  // cannot be had on this node (EEXIST: the pid is taken here). A child that failed ends by itself;
  // whoever reaps it sees exit code 127.
  void spawn(Request request, std::function<void(Result<int> exec_errno)> done);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
