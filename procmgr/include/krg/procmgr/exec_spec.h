// ExecSpec: everything that a process about to exec passes on to the program: what execve(2) is
// given and what it preserves, as far as a process on another node can have it. Read from a process
// that waits in a stopped execve; applied to a body by BodySpawner. Descriptors travel beside it
// (descriptors.h).
//
// Not taken along: timer slack (it carries our tags), the itimer and PR_SET_PDEATHSIG (they stay
// with the shadow and their signals are passed on), securebits other than the default, cgroups.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/resource.h>

#include <array>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "krg/procmgr/syscall_broker.h"
#include "krg/runtime/result.h"

namespace krg {

// argv and environment together; one argument is at most kMaxArgumentBytes (execve(2)).
inline constexpr size_t kMaxExecBytes = 8u << 20;
inline constexpr size_t kMaxArgumentBytes = 128u << 10;

// Strings as exec wants them, in one piece.
class StringList {
 public:
  void add(std::string_view text);
  size_t size() const { return count_; }
  const std::string& bytes() const { return bytes_; }
  std::vector<std::string> strings() const;
  // Pointers into this list, with a null at the end; valid while it is not changed.
  std::vector<char*> pointers() const;
  auto operator<=>(const StringList&) const = default;

 private:
  std::string bytes_;  // each ends with '\0'
  size_t count_ = 0;
};

struct ProcessAttributes {
  mode_t umask = 0;
  std::array<uid_t, 3> uids{};  // real, effective, saved
  std::array<gid_t, 3> gids{};
  uint32_t padding = 0;
  uint64_t capabilities_inheritable = 0, capabilities_permitted = 0, capabilities_effective = 0,
           capabilities_bounding = 0, capabilities_ambient = 0;  // Linux's
  uint64_t no_new_privs = 0;
  uint64_t blocked_signals = 0, ignored_signals = 0;  // bit n-1: signal n
  std::array<rlimit, RLIM_NLIMITS> limits{};
  int32_t nice = 0;
  int32_t policy = 0, realtime_priority = 0;  // sched_setscheduler(2)
  int32_t oom_score_adj = 0;
  uint32_t personality = 0;
  uint32_t more_padding = 0;
};
// It travels as it is: no byte of it may be left to chance.
static_assert(std::has_unique_object_representations_v<ProcessAttributes>);

struct ExecSpec {
  std::string path;  // absolute, or relative to cwd
  std::string cwd;
  StringList argv, environment;
  std::vector<gid_t> groups;
  ProcessAttributes attributes;
  // The places among its node's processors that it is bound to; empty: to none.
  std::vector<uint32_t> processors;

  // Error: EBADMSG.
  static Result<ExecSpec> parse(std::string_view bytes);
  std::string serialize() const;
};

// Where a process stands, as placement has to know it.
struct ExecCaller {
  pid_t parent = 0, group = 0, session = 0;
  bool has_execed = true;  // since its fork (PF_FORKNOEXEC is off)
  int32_t nice = 0, realtime_priority = 0, policy = 0;
};
// One read of /proc/TID/stat. Errors: ESRCH.
Result<ExecCaller> read_exec_caller(pid_t tid);

// Reads the spec of the caller of a stopped execve or execveat. `session_mount_ns`: the mount
// namespace that it must be in (-1: any). Blocks (it looks the path up): for a worker.
// Errors: ENOTSUP with the reason when the process cannot be taken along (traced, several threads,
// children, chroot, other namespaces, a path in /proc, …); ENOENT, EACCES … when the kernel would
// refuse the exec here: let it; ESRCH.
Result<ExecSpec> read_exec_spec(const SyscallBroker::Call& exec, const ExecCaller& caller,
                                int session_mount_ns);

}  // namespace krg
