// WorkerPool: a bounded set of threads for what blocks (files, exec, name look-ups), so that the
// event loop never does. Threads: submit() belongs to the loop's thread; `work` runs in a worker,
// `done` in the loop's thread, where both are destroyed. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>

#include "krg/runtime/event_loop.h"

namespace krg {

class WorkerPool {
 public:
  // Threads start as they are first needed, up to `max_threads`.
  WorkerPool(EventLoop& loop, unsigned max_threads);
  // Waits for work that has begun; drops what has not.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Starts all threads now: their thread ids are then below those of what is started later.
  void start_all();
  // Queues `work`; then `done` (may be empty) runs in the loop. The queue is unbounded only in
  // name: every caller has a limit of its own on what it has in flight.
  void submit(std::function<void()> work, std::function<void()> done);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace krg
