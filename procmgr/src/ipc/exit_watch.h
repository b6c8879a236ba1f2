// ExitWatch: learns of the end of processes of this node, by their pidfds. drain() tells of every
// end that has happened by now, so that an answer that is given next is not older than them: a
// parent that has waited for its child finds undone what the child's end undoes.
//
// Threads: the loop's thread. Owned by Ipc.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class ExitWatch {
 public:
  // `ended(pid)` runs once for each process that was added.
  ExitWatch(EventLoop& loop, std::function<void(pid_t)> ended);
  ExitWatch(const ExitWatch&) = delete;
  ExitWatch& operator=(const ExitWatch&) = delete;

  // No more is done for a process that is watched already. One that has gone: told at once.
  void add(pid_t process);
  void drain();

 private:
  void report(pid_t process);

  std::function<void(pid_t)> ended_;
  UniqueFd epoll_;  // of the pidfds alone
  std::map<pid_t, UniqueFd> processes_;
  EventLoop::Watch watch_;
};

}  // namespace krg
