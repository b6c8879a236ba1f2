// SpreadChild: the child of a fork of a spread process. It is born without its parent's pages of
// the page set; before its first instruction it gets private memory in their place, with what the
// pages hold, wherever they are. Then it is an ordinary process of this node. All threads of its
// parent stand still meanwhile.
//
// Threads: the loop's thread, the tracer. Shared by what is under way.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/user.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "image/frozen_thread.h"
#include "image/task_memory.h"
#include "krg/procmgr/child_reaper.h"
#include "krg/shmem/page_set.h"
#include "spread/spread_copy.h"

namespace krg {

class SpreadChild : public std::enable_shared_from_this<SpreadChild> {
 public:
  struct Request {
    ChildReaper& reaper;
    std::shared_ptr<PageSet> pages;
    std::vector<SpreadRange> ranges;  // of its parent
    std::optional<int> memory_fd;     // which it has inherited, too
    RemoteAddr instruction;
    user_regs_struct call;       // clone(2) or fork(2), whatever its parent has called for it
    user_regs_struct registers;  // its parent's in that call
    uint64_t signal_mask;
  };

  // `done` runs when the child runs, or has died.
  SpreadChild(Request request, pid_t child, std::function<void()> done)
      : request_(std::move(request)), child_(child), done_(std::move(done)) {}
  // REQUIRES: the child is a new tracee of this thread.
  void begin();
  // Kills it, unless it runs already.
  void cancel(const Error& why);

 private:
  void on_event(const ChildEvent& event);
  void put_number();
  void finish();
  void end();

  Request request_;
  const pid_t child_;
  std::function<void()> done_;
  std::optional<FrozenThread> thread_;
  std::optional<TaskMemory> memory_;
  std::shared_ptr<SpreadCopy> copy_;
};

}  // namespace krg
