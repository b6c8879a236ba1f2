// SlackTag: a small number on a process that its descendants inherit over fork and exec, whoever
// their parent becomes: the part of the timer slack (prctl(2), PR_SET_TIMERSLACK) above the default
// of 50,000 ns. At most a microsecond of slack more, so that no program notices.
//
// The slack of a process other than the caller is read and written in /proc/PID/timerslack_ns;
// that needs CAP_SYS_NICE in the process's user namespace (proc(5); Linux 5.4). It belongs to a
// thread: a child inherits it from the thread that forks. Real-time threads have none (Linux 6.12).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "krg/runtime/result.h"

namespace krg {

inline constexpr unsigned kMaxSlackTag = 999;
inline constexpr uint64_t kDefaultSlackNs = 50'000;

// The timer slack of a thread with this tag: what prctl(PR_SET_TIMERSLACK) takes.
constexpr uint64_t slack_ns_of(unsigned tag) {
  return kDefaultSlackNs + tag;
}

// The tag of a thread, 0 when it has none. Errors: ESRCH, EPERM.
Result<unsigned> read_slack_tag(pid_t tid);
// Tags every thread of the process. Errors: ESRCH, EPERM, ENOTSUP (a thread does not keep it).
// REQUIRES: tag <= kMaxSlackTag.
Status write_slack_tag(pid_t pid, unsigned tag);
// The same for a process that starts no threads meanwhile.
Status write_slack_tag_of_still(pid_t pid, unsigned tag);

}  // namespace krg
