// ProcessStatus: what the session's procfs tells about a process or thread: its place in the tree,
// its groups, whose it is. Read when it is asked for, never kept. Source: proc_pid_status(5),
// proc_pid_stat(5). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "krg/runtime/result.h"

namespace krg {

// Whose a process is, as permission checks look at it; travels in messages.
struct Credentials {
  uid_t real_uid = 0, effective_uid = 0, saved_uid = 0;
  gid_t real_gid = 0, effective_gid = 0, saved_gid = 0;
  uint64_t effective_capabilities = 0;  // of Linux (capabilities(7)), not of Kerrighed
  auto operator<=>(const Credentials&) const = default;
};

// What one file, stat, tells: half the price.
struct ProcessStat {
  pid_t parent = 0;
  pid_t group = 0, session = 0;  // 0: led by a process outside of the session
  char state = '?';
  uint64_t start_time = 0;  // of the thread, in clock ticks since the boot
  bool is_zombie() const { return state == 'Z' || state == 'X'; }
};

struct ProcessStatus : ProcessStat {
  pid_t pid = 0;  // of the thread group
};

// `tid`: of any thread. Errors: ESRCH.
Result<ProcessStat> read_process_stat(pid_t tid);
Result<ProcessStatus> read_process_status(pid_t tid);
Result<Credentials> read_credentials(pid_t tid);
// Who traces the thread; 0 for nobody.
Result<pid_t> read_tracer(pid_t tid);
Result<std::vector<gid_t>> read_supplementary_groups(pid_t tid);

// True for a thread of krgd itself.
bool is_own_thread(pid_t tid);

// A whole small file of /proc/TID. Errors: ESRCH.
Result<std::string> read_proc_text(pid_t tid, const char* name);
// What follows "KEY:<tab>" in the text of /proc/TID/status, or nullptr. Not for its first line.
const char* status_value(const std::string& status, const char* key);
std::vector<gid_t> groups_of_status(const std::string& status);

}  // namespace krg
