// UsageCall: a system call that tells how much processor time the process, one of its threads, or
// its children have used: the kernel of the process's home knows what was used there, and what
// other nodes know is added to its answer. Pure. Source: getrusage(2), times(2), clock_gettime(2),
// waitid(2), include/linux/posix-timers.h (clocks of processes and threads).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <optional>
#include <string>

#include "krg/runtime/types.h"
#include "spread/cpu_time.h"

namespace krg {

struct UsageCall {
  enum class Form { kUsage, kTimes, kClock, kUserClock };
  Form form = Form::kUsage;
  bool of_thread = false;  // else of the process
  bool of_children = false;
  pid_t pid = 0;        // whose; 0: the caller's
  RemoteAddr answer{};  // where it is
  size_t bytes = 0;     // of it
  RemoteAddr info{};    // waitid: of the siginfo_t that names the child
};

struct MoreUsage {
  CpuTime own;       // of the process or the thread
  CpuTime children;  // that it has waited for
  bool operator==(const MoreUsage&) const = default;
};

// Nothing when it tells of something else, or has no place for the answer.
std::optional<UsageCall> usage_call(const user_regs_struct& call);
// The answer `bytes` of the call with as much more.
std::string with_more(const UsageCall& call, std::string bytes, const MoreUsage& more,
                      int64_t ticks_per_s);

}  // namespace krg
