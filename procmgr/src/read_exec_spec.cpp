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
#include "krg/shmem/page_set.h"
#include "local_shared_memory.h"
#include "process_spec.h"
#include "processor_numbers.h"
#include "text_scan.h"
#include "whole_file.h"

namespace krg {
namespace {

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

// What would tear the process apart.
Status check_alone(pid_t tid, const ExecCaller& caller, const StatusText& status) {
  if (status.number<pid_t>("Tgid") != tid || status.number<unsigned>("Threads") != 1)
    return cannot_move("several threads");
  if (status.number<pid_t>("TracerPid") != 0) return cannot_move("a tracer");
  if (status.number<unsigned>("Seccomp_filters") > 1)
    return cannot_move("a system call filter of its own");
  auto children = read_whole_file(fmt::format("/proc/{}/task/{}/children", tid, tid));
  if (!children || !trimmed(*children).empty()) return cannot_move("children");
  if (syscall(SYS_kcmp, tid, caller.parent, KCMP_FILES, 0, 0) == 0)
    return cannot_move("a descriptor table that is its parent's too");
  if (status.value("THP_enabled") == "0") return cannot_move("huge pages disabled by prctl(2)");
  if (maps_shared_memory(tid)) return cannot_move("shared memory that its program may look for");
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

Result<ExecSpec> read_exec_spec(const SyscallBroker::Call& exec, const ExecCaller& caller,
                                int session_mount_ns) {
  const pid_t tid = exec.tid();
  if (exec.number() != SYS_execve) return cannot_move("execveat");
  auto read_status = StatusText::read(tid);
  if (!read_status) return read_status.error();
  const StatusText status(std::move(*read_status));
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
  spec.groups = groups_of(status);
  if (auto read = read_attributes(tid, caller, status, spec.attributes); !read) return read.error();
  spec.processors = places_among(processors_of_thread(getpid()), processors_of_thread(tid));
  if (!exec.is_valid()) return errno_error("no such process", ESRCH);
  return spec;
}

}  // namespace krg
