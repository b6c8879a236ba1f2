// PidKeeper: keeps the kernel's pid allocator inside this node's range (pid_range.h), so that
// ordinary forks take cluster-wide unique pids. It sets ns_last_pid at start, and again long before
// the range is used up; the kernel skips pids that are in use by itself. Source: proc(5),
// pid_namespaces(7).
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "krg/procmgr/pid_range.h"
#include "krg/runtime/event_loop.h"

namespace krg {

class PidKeeper {
 public:
  // Errors: ERANGE with a sentence when the machine's pid_max is too small for so many nodes
  // (kernels before 6.14 have one pid_max for all PID namespaces).
  static Result<std::unique_ptr<PidKeeper>> create(EventLoop& loop, const PidRange& range);

  // Sets the allocator back when less than half of the range is left ahead of it.
  void check_now();

  // The next pid that is not chosen comes after `pid`, if that is one of this node's.
  void skip_to(pid_t pid) const;

 private:
  explicit PidKeeper(const PidRange& range) : range_(range) {}
  Status reset() const;
  PidRange range_;
  EventLoop::Timer timer_;
};

}  // namespace krg
