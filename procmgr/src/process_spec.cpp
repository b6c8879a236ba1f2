// SPDX-License-Identifier: GPL-2.0-or-later
#include "process_spec.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "krg/runtime/unique_fd.h"
#include "process_status.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr unsigned long kForkedNoExec = 0x40;  // PF_FORKNOEXEC of the kernel's sched.h
constexpr uint64_t kMinDescriptors = 2;        // a shadow needs them
constexpr size_t kFieldsOfStat = 52;

// "NAME:[INODE]", as the links of /proc/PID/ns say (namespaces(7)): half as dear as a look at what
// they lead to.
std::string namespace_link(const char* name, ino_t inode) {
  return fmt::format("{}:[{}]", name, inode);
}

// `namespaces`: an open /proc/TID/ns.
bool same_namespace(int namespaces, const char* name, std::string_view own) {
  std::array<char, 64> theirs;
  const ssize_t length = readlinkat(namespaces, name, theirs.data(), theirs.size());
  return length > 0 && std::string_view(theirs.data(), static_cast<size_t>(length)) == own;
}

// krgd's own namespaces of the session, which it does not leave.
std::vector<std::pair<const char*, std::string>> own_namespaces() {
  std::vector<std::pair<const char*, std::string>> own;
  for (const char* name : {"user", "pid", "net", "ipc", "cgroup"}) {
    struct stat found {};
    if (stat(fmt::format("/proc/self/ns/{}", name).c_str(), &found) == 0)  // else not built in
      own.emplace_back(name, namespace_link(name, found.st_ino));
  }
  return own;
}

// /proc/TID/limits: a heading, then one line a limit in the order of their numbers: the name in the
// first 26 columns, soft and hard value.
Status read_limits_text(pid_t tid, std::array<rlimit, RLIM_NLIMITS>& limits) {
  constexpr size_t kNameColumns = 26;
  auto text = read_whole_file(fmt::format("/proc/{}/limits", tid));
  if (!text) return errno_error("no such process", ESRCH);
  std::string_view rest = *text;
  next_line(rest);
  for (rlimit& limit : limits) {
    std::string_view line = next_line(rest);
    if (line.size() < kNameColumns) return errno_error("limits", EBADMSG);
    line.remove_prefix(kNameColumns);
    for (rlim_t* value : {&limit.rlim_cur, &limit.rlim_max})
      *value = to_number<rlim_t>(next_word(line)).value_or(RLIM_INFINITY);
  }
  return {};
}

// By prlimit(2), half as dear as the text; of another user's process that needs CAP_SYS_RESOURCE.
Status read_limits(pid_t tid, std::array<rlimit, RLIM_NLIMITS>& limits) {
  for (size_t i = 0; i < limits.size(); ++i)
    if (prlimit(tid, static_cast<__rlimit_resource>(i), nullptr, &limits[i]) != 0)
      return read_limits_text(tid, limits);
  return {};
}

}  // namespace

Error cannot_move(std::string why) {
  return errno_error(std::move(why), ENOTSUP);
}

Result<std::string> read_link(const std::string& path) {
  std::string target(4096, '\0');
  ssize_t length = readlink(path.c_str(), target.data(), target.size());
  if (length < 0) return errno_error(path);
  target.resize(static_cast<size_t>(length));
  return target;
}

Result<StatusText> StatusText::read(pid_t tid) {
  auto text = read_whole_file(fmt::format("/proc/{}/status", tid));
  if (!text || text->empty()) return errno_error("no such process", ESRCH);
  return StatusText(std::move(*text));
}

Result<std::vector<std::string>> stat_fields(pid_t tid) {
  auto text = read_proc_text(tid, "stat");
  if (!text) return text.error();
  const size_t end = text->rfind(')');
  if (end == std::string::npos) return errno_error("stat", EBADMSG);
  std::vector<std::string> fields;
  for (std::string_view word : split_words(trimmed(std::string_view(*text).substr(end + 1))))
    fields.emplace_back(word);
  if (fields.size() < kFieldsOfStat - 2) return errno_error("stat", EBADMSG);
  return fields;
}

Status check_namespaces(pid_t tid, int session_mount_ns) {
  static const auto own = own_namespaces();
  UniqueFd namespaces(
      open(fmt::format("/proc/{}/ns", tid).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!namespaces) return errno_error("no such process", ESRCH);
  for (const auto& [name, found] : own)
    if (!same_namespace(namespaces.get(), name, found))
      return cannot_move(fmt::format("a {} namespace of its own", name));
  struct stat session {};
  if (session_mount_ns >= 0 &&
      (fstat(session_mount_ns, &session) != 0 ||
       !same_namespace(namespaces.get(), "mnt", namespace_link("mnt", session.st_ino))))
    return cannot_move("a mount namespace of its own");
  auto root = read_link(fmt::format("/proc/{}/root", tid));
  if (!root || *root != "/") return cannot_move("a root directory of its own");
  return {};
}

std::vector<gid_t> groups_of(const StatusText& status) {
  std::vector<gid_t> groups;
  for (std::string_view group : split_words(status.value("Groups")))
    groups.push_back(to_number<gid_t>(group).value_or(0));
  return groups;
}

Status read_attributes(pid_t tid, const ExecCaller& caller, const StatusText& status,
                       ProcessAttributes& a) {
  a.nice = caller.nice;
  a.realtime_priority = caller.realtime_priority;
  a.policy = caller.policy;
  if (a.policy == SCHED_DEADLINE) return cannot_move("the deadline scheduling policy");
  a.umask = status.number<mode_t>("Umask", 8);
  a.uids = status.ids<uid_t>("Uid");
  a.gids = status.ids<gid_t>("Gid");
  a.capabilities_inheritable = status.number<uint64_t>("CapInh", 16);
  a.capabilities_permitted = status.number<uint64_t>("CapPrm", 16);
  a.capabilities_effective = status.number<uint64_t>("CapEff", 16);
  a.capabilities_bounding = status.number<uint64_t>("CapBnd", 16);
  a.capabilities_ambient = status.number<uint64_t>("CapAmb", 16);
  a.no_new_privs = status.number<uint8_t>("NoNewPrivs");
  a.blocked_signals = status.number<uint64_t>("SigBlk", 16);
  a.ignored_signals = status.number<uint64_t>("SigIgn", 16);
  if (auto read = read_limits(tid, a.limits); !read) return read;
  if (a.limits[RLIMIT_NOFILE].rlim_cur < kMinDescriptors)
    return cannot_move("a limit of less than two descriptors");
  auto adjust = read_whole_file(fmt::format("/proc/{}/oom_score_adj", tid));
  auto personality = read_whole_file(fmt::format("/proc/{}/personality", tid));
  if (!adjust || !personality) return errno_error("no such process", ESRCH);
  a.oom_score_adj = to_number<int32_t>(trimmed(*adjust)).value_or(0);
  a.personality = to_number<uint32_t>(trimmed(*personality), 16).value_or(0);
  return {};
}

Result<ExecCaller> read_exec_caller(pid_t tid) {
  auto fields = stat_fields(tid);
  if (!fields) return fields.error();
  ExecCaller caller;
  caller.parent = stat_number<pid_t>(*fields, 4);
  caller.group = stat_number<pid_t>(*fields, 5);
  caller.session = stat_number<pid_t>(*fields, 6);
  caller.has_execed = !(stat_number<unsigned long>(*fields, 9) & kForkedNoExec);
  caller.nice = stat_number<int32_t>(*fields, 19);
  caller.realtime_priority = stat_number<int32_t>(*fields, 40);
  caller.policy = stat_number<int32_t>(*fields, 41);
  return caller;
}

}  // namespace krg
