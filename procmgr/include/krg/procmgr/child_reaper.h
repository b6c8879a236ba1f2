// ChildReaper: the one place where krgd waits for children. krgd is the init of its session, so
// orphans become its children too; those are reaped silently, the children that a part watches are
// reported to it.
//
// A child made with exit_signal 0 (clone3(2)) is left alone: its maker waits for it with __WCLONE.
// SIGCHLD is blocked in all of krgd's threads and read from a signalfd; what krgd starts must
// unblock it.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/resource.h>

#include <functional>
#include <memory>

#include "krg/runtime/event_loop.h"

namespace krg {

// What waitid(2) told: code is CLD_EXITED, CLD_KILLED, CLD_DUMPED, CLD_STOPPED, CLD_TRAPPED or
// CLD_CONTINUED; status the exit status or signal.
struct ChildEvent {
  pid_t pid = 0;
  int code = 0;
  int status = 0;
  uid_t uid = 0;
  struct rusage usage {};  // of the child and its waited-for descendants; complete at the end

  bool is_end() const;
};

class ChildReaper {
 public:
  // REQUIRES: no other thread runs yet (they must inherit the blocked SIGCHLD).
  static Result<std::unique_ptr<ChildReaper>> create(EventLoop& loop);
  ~ChildReaper();
  ChildReaper(const ChildReaper&) = delete;
  ChildReaper& operator=(const ChildReaper&) = delete;

  // Reports each stop, continue and finally the end of child `pid`; the end ends the watch. The
  // child need not exist yet, where its pid is chosen (set_tid). REQUIRES: called before the child
  // can have been reaped: before it is made, or in the callback that made it.
  void watch(pid_t pid, std::function<void(const ChildEvent&)> changed);
  void unwatch(pid_t pid);
  // Reports the stops of thread `tid` to its tracer, krgd (CLD_TRAPPED), and its end. Apart from
  // watch(), which a thread of a body has besides. A tracee that stops and is not watched within a
  // second is let go.
  void watch_tracee(pid_t tid, std::function<void(const ChildEvent&)> changed);
  // The same for a thread that a tracee makes: it may have stopped before it was known; that is
  // reported, too.
  void watch_new_tracee(pid_t tid, std::function<void(const ChildEvent&)> changed);
  void unwatch_tracee(pid_t tid);
  // A tracee that is watched goes on: it may have the core before the loop looks for messages, and
  // stop again.
  void tracee_goes_on(pid_t tid);
  // It stands in a stop that has been reported, and will not be let go on without tracee_goes_on().
  // Where many stand they are not looked at each time that a child has changed: the kernel would
  // look at each one of them to find another. That one has been killed may be told some
  // milliseconds later then.
  void tracee_stands(pid_t tid);

 private:
  struct Impl;
  explicit ChildReaper(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
