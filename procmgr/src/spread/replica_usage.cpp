// Replica: the processor time of the threads that run in it, which home adds to what its own kernel
// has counted. The keeper's is krgd's business.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/replica.h"

namespace krg {

std::optional<TaskTimes> Replica::times_of(const ThreadPtr& thread) const {
  if (!thread->traced) return std::nullopt;  // it has yet to begin
  return read_task_times(pid(), thread->traced->tid());
}

std::vector<ThreadUsage> Replica::usage() const {
  std::vector<ThreadUsage> all{{.tid = 0, .used = ended_used_}};
  for (const auto& [tid, thread] : threads_)
    if (const auto times = times_of(thread))
      all.push_back({.tid = tid, .state = times->state, .used = times->used});
  return all;
}

// The thread is no more: what it has used here stays its process's.
void Replica::end_here(const ThreadPtr& thread) {
  if (const auto times = times_of(thread)) ended_used_ += times->used;
  end_thread(thread);
}

}  // namespace krg
