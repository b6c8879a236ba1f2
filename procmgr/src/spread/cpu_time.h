// CpuTime: processor time of a thread, as the kernel of the node where it runs has counted it.
// Source: proc_pid_stat(5), Documentation/scheduler/sched-stats.rst (schedstat's first number is
// the time on a processor, in nanoseconds; stat has ticks).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace krg {

struct CpuTime {
  int64_t user_ns = 0, system_ns = 0;

  int64_t total_ns() const { return user_ns + system_ns; }
  CpuTime& operator+=(const CpuTime& more) {
    user_ns += more.user_ns;
    system_ns += more.system_ns;
    return *this;
  }
  bool operator==(const CpuTime&) const = default;
};

struct TaskTimes {
  char state = '?';  // as stat has it
  CpuTime used;
};

// All of it, divided as the ticks are (the kernel does likewise). `schedstat` may be empty: then
// the ticks say all. Nothing when `stat` is none. Pure.
std::optional<TaskTimes> parse_task_times(std::string_view stat, std::string_view schedstat,
                                          int64_t ticks_per_s);
// Of a thread of this node. Nothing when there is no such thread.
std::optional<TaskTimes> read_task_times(pid_t pid, pid_t tid);

}  // namespace krg
