// Reads an ExecSpec from procfs and the memory of the process.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <map>
#include <optional>

#include "krg/procmgr/exec_spec.h"
#include "krg/runtime/unique_fd.h"
#include "local_shared_memory.h"
#include "text_scan.h"

namespace krg {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr size_t kMaxStatusBytes = 256u << 10;  // 65536 supplementary groups fit
constexpr unsigned long kForkedNoExec = 0x40;   // PF_FORKNOEXEC of the kernel's sched.h
constexpr uint64_t kMinDescriptors = 2;         // a shadow needs them

Error cannot_move(std::string why) {
  return errno_error(std::move(why), ENOTSUP);
}

Result<std::string> read_whole(const std::string& path) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno_error(path);
  std::string text;
  char buffer[4096];
  while (text.size() < kMaxStatusBytes) {
    ssize_t got = read(file.get(), buffer, sizeof buffer);
    if (got < 0) return errno_error(path);
    if (got == 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  return text;
}

Result<std::string> read_link(const std::string& path) {
  std::string target(4096, '\0');
  ssize_t length = readlink(path.c_str(), target.data(), target.size());
  if (length < 0) return errno_error(path);
  target.resize(static_cast<size_t>(length));
  return target;
}

// Memory of the caller, a page at a time: strings of one process lie close together.
class PagedReader {
 public:
  explicit PagedReader(const SyscallBroker::Call& call) : call_(call) {}

  Result<uint64_t> word(RemoteAddr at) {
    // An aligned word does not cross a page; an unaligned vector of pointers is not worth the care.
    auto page = page_of(at);
    if (!page) return page.error();
    if (at.value % sizeof(uint64_t) != 0) return cannot_move("an unaligned argument vector");
    uint64_t value;
    (*page)->copy(reinterpret_cast<char*>(&value), sizeof value, at.value % kPageBytes);
    return value;
  }
  // Appends the string at `from` to `list`.
  Status add_string(RemoteAddr from, StringList& list) {
    std::string text;
    for (;;) {
      const RemoteAddr at = from + text.size();
      auto page = page_of(at);
      if (!page) return page.error();
      const size_t offset = at.value % kPageBytes;
      const size_t end = (*page)->find('\0', offset);
      text.append(**page, offset, end == std::string::npos ? end : end - offset);
      if (text.size() > kMaxArgumentBytes) return cannot_move("an argument over 128 KiB");
      if (end == std::string::npos) continue;
      list.add(text);
      return {};
    }
  }

 private:
  Result<const std::string*> page_of(RemoteAddr at) {
    const uint64_t number = at.value / kPageBytes;
    auto found = pages_.find(number);
    if (found == pages_.end()) {
      auto page = call_.read_memory(RemoteAddr{number * kPageBytes}, kPageBytes);
      if (!page) return page.error();
      found = pages_.emplace(number, std::move(*page)).first;
    }
    return &found->second;
  }

  const SyscallBroker::Call& call_;
  std::map<uint64_t, std::string> pages_;
};

Status read_list(PagedReader& memory, uint64_t address, StringList& list) {
  for (RemoteAddr at{address}; address != 0; at = at + sizeof(uint64_t)) {
    auto pointer = memory.word(at);
    if (!pointer) return pointer.error();
    if (*pointer == 0) break;
    if (auto added = memory.add_string(RemoteAddr{*pointer}, list); !added) return added;
    if (list.bytes().size() + list.size() * sizeof(uint64_t) > kMaxExecBytes)
      return cannot_move("arguments over 8 MiB");
  }
  return {};
}

// "Key:\tvalue" lines of /proc/TID/status.
class StatusText {
 public:
  explicit StatusText(std::string text) : text_(std::move(text)) {}
  std::string_view value(std::string_view key) const {
    for (std::string_view rest = text_; !rest.empty();) {
      std::string_view line = next_line(rest);
      if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ':')
        return trimmed(line.substr(key.size() + 1));
    }
    return {};
  }
  template <class Number>
  Number number(std::string_view key, int base = 10) const {
    return to_number<Number>(value(key), base).value_or(Number{});
  }
  // The first three of "real effective saved filesystem".
  template <class Id>
  std::array<Id, 3> ids(std::string_view key) const {
    std::array<Id, 3> found{};
    auto words = split_words(value(key));
    for (size_t i = 0; i < 3 && i < words.size(); ++i)
      found[i] = to_number<Id>(words[i]).value_or(Id{});
    return found;
  }

 private:
  std::string text_;
};

// The fields of /proc/TID/stat from the third on; proc(5) counts from 1.
Result<std::vector<std::string>> stat_fields(pid_t tid) {
  auto text = read_whole(fmt::format("/proc/{}/stat", tid));
  if (!text) return errno_error("no such process", ESRCH);
  const size_t end = text->rfind(')');
  if (end == std::string::npos) return errno_error("stat", EBADMSG);
  std::vector<std::string> fields;
  for (std::string_view word : split_words(trimmed(std::string_view(*text).substr(end + 1))))
    fields.emplace_back(word);
  if (fields.size() < 39) return errno_error("stat", EBADMSG);
  return fields;
}
template <class Number>
Number stat_number(const std::vector<std::string>& fields, size_t number_in_proc5) {
  return to_number<Number>(fields[number_in_proc5 - 3]).value_or(Number{});
}

// `namespaces`: an open /proc/TID/ns.
bool same_namespace(int namespaces, const char* name, const struct stat& own) {
  struct stat theirs {};
  return fstatat(namespaces, name, &theirs, 0) == 0 && theirs.st_ino == own.st_ino &&
         theirs.st_dev == own.st_dev;
}

// krgd's own namespaces of the session, which it does not leave.
std::vector<std::pair<const char*, struct stat>> own_namespaces() {
  std::vector<std::pair<const char*, struct stat>> own;
  for (const char* name : {"user", "pid", "net", "ipc", "cgroup"}) {
    struct stat found {};
    if (stat(fmt::format("/proc/self/ns/{}", name).c_str(), &found) == 0)  // else not built in
      own.emplace_back(name, found);
  }
  return own;
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
      (fstat(session_mount_ns, &session) != 0 || !same_namespace(namespaces.get(), "mnt", session)))
    return cannot_move("a mount namespace of its own");
  auto root = read_link(fmt::format("/proc/{}/root", tid));
  if (!root || *root != "/") return cannot_move("a root directory of its own");
  return {};
}

// What would tear the process apart.
Status check_alone(pid_t tid, const ExecCaller& caller, const StatusText& status) {
  if (status.number<pid_t>("Tgid") != tid || status.number<unsigned>("Threads") != 1)
    return cannot_move("several threads");
  if (status.number<pid_t>("TracerPid") != 0) return cannot_move("a tracer");
  if (status.number<unsigned>("Seccomp_filters") > 1)
    return cannot_move("a system call filter of its own");
  auto children = read_whole(fmt::format("/proc/{}/task/{}/children", tid, tid));
  if (!children || !trimmed(*children).empty()) return cannot_move("children");
  if (syscall(SYS_kcmp, tid, caller.parent, KCMP_FILES, 0, 0) == 0)
    return cannot_move("a descriptor table that is its parent's too");
  if (maps_shared_memory(tid)) return cannot_move("shared memory that its program may look for");
  return {};
}

// /proc/TID/limits: a heading, then one line a limit in the order of their numbers: the name in the
// first 26 columns, soft and hard value. prlimit(2) would need CAP_SYS_RESOURCE.
Status read_limits(pid_t tid, std::array<rlimit, RLIM_NLIMITS>& limits) {
  constexpr size_t kNameColumns = 26;
  auto text = read_whole(fmt::format("/proc/{}/limits", tid));
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
  auto adjust = read_whole(fmt::format("/proc/{}/oom_score_adj", tid));
  auto personality = read_whole(fmt::format("/proc/{}/personality", tid));
  if (!adjust || !personality) return errno_error("no such process", ESRCH);
  a.oom_score_adj = to_number<int32_t>(trimmed(*adjust)).value_or(0);
  a.personality = to_number<uint32_t>(trimmed(*personality), 16).value_or(0);
  return {};
}

// The path as the other node can look it up. /proc and /dev/fd mean another thing there.
Result<std::string> path_to_exec(pid_t tid, std::string path, const std::string& cwd) {
  if (path == "/proc/self/exe") {
    auto program = read_link(fmt::format("/proc/{}/exe", tid));
    if (!program) return program.error();
    path = std::move(*program);
  }
  const std::string whole = path.starts_with('/') ? path : cwd + "/" + path;
  if (whole.starts_with("/proc/") || whole.starts_with("/dev/fd/"))
    return cannot_move("a program in " + whole.substr(0, whole.find('/', 1)));
  // krgd's mounts are the session's but for what it serves itself, and no program is there.
  struct stat attributes {};
  if (stat(whole.c_str(), &attributes) != 0) return errno_error(whole);
  if (!S_ISREG(attributes.st_mode) || !(attributes.st_mode & 0111))
    return errno_error(whole, EACCES);
  return path;
}

}  // namespace

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

Result<ExecSpec> read_exec_spec(const SyscallBroker::Call& exec, const ExecCaller& caller,
                                int session_mount_ns) {
  const pid_t tid = exec.tid();
  if (exec.number() != SYS_execve) return cannot_move("execveat");
  auto text = read_whole(fmt::format("/proc/{}/status", tid));
  if (!text) return errno_error("no such process", ESRCH);
  const StatusText status(std::move(*text));
  if (auto alone = check_alone(tid, caller, status); !alone) return alone.error();
  if (auto inside = check_namespaces(tid, session_mount_ns); !inside) return inside.error();

  ExecSpec spec;
  auto cwd = read_link(fmt::format("/proc/{}/cwd", tid));
  if (!cwd) return cwd.error();
  spec.cwd = std::move(*cwd);
  auto path = exec.read_string(RemoteAddr{exec.arg(0)}, PATH_MAX);
  if (!path) return path.error();
  auto found = path_to_exec(tid, std::move(*path), spec.cwd);
  if (!found) return found.error();
  spec.path = std::move(*found);
  PagedReader memory(exec);
  if (auto read = read_list(memory, exec.arg(1), spec.argv); !read) return read.error();
  if (auto read = read_list(memory, exec.arg(2), spec.environment); !read) return read.error();
  if (spec.argv.size() == 0) return cannot_move("no arguments");
  for (std::string_view group : split_words(status.value("Groups")))
    spec.groups.push_back(to_number<gid_t>(group).value_or(0));
  if (auto read = read_attributes(tid, caller, status, spec.attributes); !read) return read.error();
  if (!exec.is_valid()) return errno_error("no such process", ESRCH);
  return spec;
}

}  // namespace krg
