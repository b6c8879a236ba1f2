// SPDX-License-Identifier: GPL-2.0-or-later
#include "tty_readers.h"

#include <fmt/core.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "descriptor_waits.h"
#include "process_status.h"

namespace krg {
namespace {

enum class Wait { kNone, kPoll, kRead };

Wait wait_of(int pid, int tid, const std::string& tty) {
  const auto call = blocked_call(pid, tid);
  switch (call ? call->number : -1) {
    case SYS_read:
    case SYS_readv:
      return links_to(pid, static_cast<int>(call->arguments[0]), tty) ? Wait::kRead : Wait::kNone;
    case SYS_poll:
    case SYS_ppoll:
    case SYS_select:
    case SYS_pselect6:
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
      return find_open(pid, tty) ? Wait::kPoll : Wait::kNone;
    default:
      return Wait::kNone;
  }
}

// What is stopped, or stands to be moved, looks as if it still were in its call.
bool is_stopped(int tid) {
  const auto stat = read_process_stat(tid);
  return stat && (stat->state == 'T' || stat->state == 't');
}

}  // namespace

std::vector<TtyReaders> find_tty_readers(const std::string& tty) {
  std::vector<TtyReaders> found;
  find_number_in("/proc", [&](int pid) {
    find_number_in(fmt::format("/proc/{}/task", pid), [&](int tid) {
      const Wait wait = wait_of(pid, tid, tty);
      if (wait != Wait::kNone && !is_stopped(tid))
        found.push_back({getpgid(pid), wait == Wait::kRead});
      return false;
    });
    return false;
  });
  return found;
}

}  // namespace krg
