// Session: the mounts and namespaces of this node's session, seen from krgd, which is its init.
// krgd_boot has made the namespaces; this class makes what is in them:
//
//   krgd's mount namespace       /proc (the session's own procfs), /dev/shm, /dev/mqueue, and the
//   session root,
//                                a tmpfs with proc/ (a second procfs), fs/ (empty here), ctl.sock
//   the session's, its child     the same, and krgfs over fs/ with fs/proc and fs/cpu bound over
//   /proc and
//                                /sys/devices/system/cpu
//
// krgd stays in the first and so never waits for a file system that it serves itself.
//
// Threads: the loop's thread; what may wait for krgfs runs in a worker. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <string>

#include "krg/procmgr/session_fs.h"
#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"
#include "krg/runtime/worker_pool.h"
#include "namespaces.h"

namespace krg {

class Session {
 public:
  // Mounts what krgd needs itself. REQUIRES: krgd is pid 1 of fresh PID, mount, IPC and UTS
  // namespaces.
  static Result<Session> create();

  const std::string& root() const { return root_; }
  // The session's mount namespace.
  int mount_namespace() const { return mount_namespace_.get(); }
  // What a program joins besides its job's UTS namespace.
  const NamespaceSet& namespaces() const { return namespaces_; }

  // Mounts krgfs and starts serving it. Where /dev/fuse cannot be had, says so in the log and goes
  // on without.
  void serve(SessionFs& fs) const;
  // Binds the trees that `fs` serves to where programs look for them; `done` runs in the loop.
  struct View {
    std::string tree;    // "proc"
    std::string target;  // "/proc"
  };
  void bind_views(WorkerPool& workers, std::vector<View> views,
                  std::function<void(Status)> done) const;

 private:
  Session() = default;
  Status mount_own();
  Status bind_terminal();
  Status make_mount_namespace();
  std::string root_;
  UniqueFd mount_namespace_;
  NamespaceSet namespaces_;
};

}  // namespace krg
