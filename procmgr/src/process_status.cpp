// SPDX-License-Identifier: GPL-2.0-or-later
#include "process_status.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cstdio>
#include <cstring>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

// A whole small file of /proc/TID; procfs makes it at the first read.
Result<std::string> read_proc_file(pid_t tid, const char* name) {
  UniqueFd file(open(fmt::format("/proc/{}/{}", tid, name).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno_error("no such process", ESRCH);
  std::string text(4096, '\0');
  ssize_t length = read(file.get(), text.data(), text.size());
  if (length <= 0) return errno_error("no such process", ESRCH);
  text.resize(static_cast<size_t>(length));
  return text;
}

// What follows "KEY:\t" in /proc/TID/status, or nullptr.
const char* value_of(const std::string& status, const char* key) {
  const std::string wanted = fmt::format("\n{}:\t", key);
  const size_t at = status.find(wanted);
  return at == std::string::npos ? nullptr : status.c_str() + at + wanted.size();
}

}  // namespace

Result<ProcessStatus> read_process_status(pid_t tid) {
  auto stat = read_proc_file(tid, "stat");
  if (!stat) return stat.error();
  ProcessStatus status;
  // The command name (field 2) may hold anything, so fields are counted from the last parenthesis.
  const char* rest = strrchr(stat->c_str(), ')');
  if (!rest || sscanf(rest + 1, " %c %d %d %d", &status.state, &status.parent, &status.group,
                      &status.session) != 4)
    return errno_error("no such process", ESRCH);
  // Only status tells the thread group; a process's first thread has its number.
  auto text = read_proc_file(tid, "status");
  if (!text) return text.error();
  const char* group = value_of(*text, "Tgid");
  if (!group || sscanf(group, "%d", &status.pid) != 1) return errno_error("no such process", ESRCH);
  return status;
}

Result<Credentials> read_credentials(pid_t tid) {
  auto text = read_proc_file(tid, "status");
  if (!text) return text.error();
  Credentials who;
  unsigned long capabilities = 0;
  const char* uids = value_of(*text, "Uid");
  const char* gids = value_of(*text, "Gid");
  const char* effective = value_of(*text, "CapEff");
  if (!uids || !gids || !effective ||
      sscanf(uids, "%u %u %u", &who.real_uid, &who.effective_uid, &who.saved_uid) != 3 ||
      sscanf(gids, "%u %u %u", &who.real_gid, &who.effective_gid, &who.saved_gid) != 3 ||
      sscanf(effective, "%lx", &capabilities) != 1)
    return errno_error("no such process", ESRCH);
  who.effective_capabilities = capabilities;
  return who;
}

Result<pid_t> read_tracer(pid_t tid) {
  auto text = read_proc_file(tid, "status");
  if (!text) return text.error();
  const char* tracer = value_of(*text, "TracerPid");
  pid_t pid = 0;
  if (!tracer || sscanf(tracer, "%d", &pid) != 1) return errno_error("no such process", ESRCH);
  return pid;
}

Result<std::vector<gid_t>> read_supplementary_groups(pid_t tid) {
  auto text = read_proc_file(tid, "status");
  if (!text) return text.error();
  std::vector<gid_t> groups;
  const char* rest = value_of(*text, "Groups");
  gid_t group = 0;
  for (int length = 0; rest && sscanf(rest, " %u%n", &group, &length) == 1; rest += length)
    groups.push_back(group);
  return groups;
}

}  // namespace krg
