// SPDX-License-Identifier: GPL-2.0-or-later
#include "process_status.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "krg/procmgr/process_table.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

bool is_own_thread(pid_t tid) {
  auto status = read_process_status(tid);
  return status && status->pid == getpid();
}

Result<std::string> read_proc_text(pid_t tid, const char* name) {
  UniqueFd file(open(fmt::format("/proc/{}/{}", tid, name).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno_error("no such process", ESRCH);
  std::string text;
  char piece[4096];
  for (ssize_t got; (got = read(file.get(), piece, sizeof piece)) != 0;) {
    if (got < 0) return errno_error("no such process", ESRCH);
    text.append(piece, static_cast<size_t>(got));
    // procfs gives a line that begins in this piece whole, or the rest with the next read.
    if (static_cast<size_t>(got) < sizeof piece && text.ends_with('\n')) break;
  }
  if (text.empty()) return errno_error("no such process", ESRCH);
  return text;
}

const char* status_value(const std::string& status, const char* key) {
  const std::string wanted = fmt::format("\n{}:\t", key);
  const size_t at = status.find(wanted);
  return at == std::string::npos ? nullptr : status.c_str() + at + wanted.size();
}

Result<ProcessStat> read_process_stat(pid_t tid) {
  auto text = read_proc_text(tid, "stat");
  if (!text) return text.error();
  ProcessStat stat;
  // The command name (field 2) may hold anything, so fields are counted from the last parenthesis.
  const char* rest = strrchr(text->c_str(), ')');
  if (!rest || sscanf(rest + 1,
                      " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
                      "%" SCNu64,
                      &stat.state, &stat.parent, &stat.group, &stat.session, &stat.start_time) != 5)
    return errno_error("no such process", ESRCH);
  return stat;
}

uint64_t process_start_time(pid_t pid) {
  auto stat = read_process_stat(pid);
  return stat ? stat->start_time : 0;
}

Result<ProcessStatus> read_process_status(pid_t tid) {
  auto stat = read_process_stat(tid);
  if (!stat) return stat.error();
  ProcessStatus status{*stat};
  // Only status tells the thread group; a process's first thread has its number.
  auto text = read_proc_text(tid, "status");
  if (!text) return text.error();
  const char* group = status_value(*text, "Tgid");
  if (!group || sscanf(group, "%d", &status.pid) != 1) return errno_error("no such process", ESRCH);
  return status;
}

Result<Credentials> read_credentials(pid_t tid) {
  auto text = read_proc_text(tid, "status");
  if (!text) return text.error();
  Credentials who;
  unsigned long capabilities = 0;
  const char* uids = status_value(*text, "Uid");
  const char* gids = status_value(*text, "Gid");
  const char* effective = status_value(*text, "CapEff");
  if (!uids || !gids || !effective ||
      sscanf(uids, "%u %u %u", &who.real_uid, &who.effective_uid, &who.saved_uid) != 3 ||
      sscanf(gids, "%u %u %u", &who.real_gid, &who.effective_gid, &who.saved_gid) != 3 ||
      sscanf(effective, "%lx", &capabilities) != 1)
    return errno_error("no such process", ESRCH);
  who.effective_capabilities = capabilities;
  return who;
}

Result<pid_t> read_tracer(pid_t tid) {
  auto text = read_proc_text(tid, "status");
  if (!text) return text.error();
  const char* tracer = status_value(*text, "TracerPid");
  pid_t pid = 0;
  if (!tracer || sscanf(tracer, "%d", &pid) != 1) return errno_error("no such process", ESRCH);
  return pid;
}

std::vector<gid_t> groups_of_status(const std::string& status) {
  std::vector<gid_t> groups;
  const char* rest = status_value(status, "Groups");
  gid_t group = 0;
  for (int length = 0; rest && sscanf(rest, " %u%n", &group, &length) == 1; rest += length)
    groups.push_back(group);
  return groups;
}

Result<std::vector<gid_t>> read_supplementary_groups(pid_t tid) {
  auto text = read_proc_text(tid, "status");
  if (!text) return text.error();
  return groups_of_status(*text);
}

}  // namespace krg
