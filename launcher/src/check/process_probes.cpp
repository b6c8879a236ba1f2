// Probes of what sessions, pids and remote processes are made of.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/core.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "check/probes.h"
#include "check/user_namespace.h"
#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

constexpr int kMostPids = 4194304;  // PID_MAX_LIMIT of 64-bit kernels (proc(5))

std::string first_line(const char* path) {
  UniqueFd file(::open(path, O_RDONLY | O_CLOEXEC));
  char buffer[256];
  const ssize_t count = file ? ::read(file.get(), buffer, sizeof buffer) : -1;
  if (count <= 0) return {};
  const std::string_view text(buffer, static_cast<size_t>(count));
  return std::string(text.substr(0, text.find('\n')));
}

bool write_text(const char* path, std::string_view text) {
  UniqueFd file(::open(path, O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// Forks a child with the pid `wanted` that ends at once. The pid that it got, or -1 with errno.
pid_t fork_with_pid(pid_t wanted) {
  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  arguments.set_tid = reinterpret_cast<uint64_t>(&wanted);
  arguments.set_tid_size = 1;
  const pid_t child = static_cast<pid_t>(::syscall(SYS_clone3, &arguments, sizeof arguments));
  if (child == 0) ::_exit(0);
  if (child > 0) ::waitpid(child, nullptr, 0);
  return child;
}

}  // namespace

Finding probe_kernel_version() {
  utsname names{};
  ::uname(&names);
  int major = 0, minor = 0;
  if (std::sscanf(names.release, "%d.%d", &major, &minor) != 2) return lacking(names.release);
  // 5.19 brought SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, the newest thing that we cannot do
  // without; 6.1 is the oldest kernel that this was tested for.
  const int version = major * 1000 + minor;
  if (version < 5019) return lacking(names.release);
  return version < 6001 ? limited(names.release) : found(names.release);
}

Finding probe_root() {
  return ::geteuid() == 0 ? found("effective user 0")
                          : lacking(fmt::format("user {}", ::geteuid()));
}

Finding probe_user_namespaces() {
  return run_in_child([] {
    const std::string most = first_line("/proc/sys/user/max_user_namespaces");
    auto done = enter_own_namespaces(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS);
    if (done) return found(fmt::format("user, pid, mount, ipc and uts; at most {}", most));
    Finding finding = lacking(done.error().message());
    if (most == "0") finding.mend = "sysctl -w user.max_user_namespaces=15000";
    if (first_line("/proc/sys/kernel/unprivileged_userns_clone") == "0")
      finding.mend = "sysctl -w kernel.unprivileged_userns_clone=1";
    return finding;
  });
}

Finding probe_apparmor_userns() {
  // Ubuntu 24.04 lets the namespace be made and takes its capabilities away: only using one tells.
  return run_in_child([] {
    if (auto done = enter_own_namespaces(CLONE_NEWNS); !done)
      return lacking(done.error().message());
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=4k") != 0)
      return lacking_errno("mount in a user namespace");
    return found("capabilities hold in a user namespace");
  });
}

Finding probe_network_namespaces() {
  return run_in_child([] {
    if (auto done = enter_own_namespaces(CLONE_NEWNET); !done)
      return lacking(done.error().message());
    const int status = std::system(
        "exec >/dev/null 2>&1; ip link set lo up && ip link add krgbr type bridge && "
        "ip link add krgv0 type veth peer name krgv1 && ip link set krgv0 master krgbr up");
    if (status == 0) return found("bridge and veth");
    return lacking("ip link add: bridge or veth not available, or no iproute2");
  });
}

Finding probe_set_tid() {
  return run_in_child([] {
    return run_as_first_process([] {
      constexpr pid_t kWanted = 12345;
      const pid_t child = fork_with_pid(kWanted);
      if (child < 0) return lacking_errno("clone3 with set_tid");
      if (child != kWanted) return lacking(fmt::format("asked for {}, got {}", kWanted, child));
      return found("a process can be given its pid");
    });
  });
}

Finding probe_ns_last_pid() {
  return run_in_child([] {
    return run_as_first_process([] {
      if (!write_text("/proc/sys/kernel/ns_last_pid", "20000")) return lacking_errno("ns_last_pid");
      const pid_t child = ::fork();
      if (child == 0) ::_exit(0);
      ::waitpid(child, nullptr, 0);
      if (child != 20001) return lacking(fmt::format("the next pid was {}, not 20001", child));
      return found("each node can hand out pids of its own range");
    });
  });
}

Finding probe_timer_slack() {
  return run_in_child([] {
    return run_as_first_process([] {
      const pid_t child = ::fork();
      if (child == 0)
        for (;;) ::pause();
      const std::string path = fmt::format("/proc/{}/timerslack_ns", child);
      const bool written = write_text(path.c_str(), "50001");
      const Finding failure = lacking_errno("timerslack_ns of a child");
      const std::string slack = first_line(path.c_str());
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
      if (!written) return failure;
      if (slack != "50001") return lacking("a process does not keep its timer slack");
      return found("a process and its descendants can be marked");
    });
  });
}

Finding probe_pid_max() {
  const std::string outside = first_line("/proc/sys/kernel/pid_max");
  Finding inside = run_in_child([] {
    // As nobody (enter_own_namespaces): where the limit is not per namespace, the write is refused
    // and cannot change the machine's.
    return run_as_first_process([] {
      if (!write_text("/proc/sys/kernel/pid_max", std::to_string(kMostPids)))
        return lacking_errno("pid_max of a PID namespace");
      if (fork_with_pid(kMostPids - 1) < 0) return lacking_errno("clone3 with set_tid=4194303");
      return found(fmt::format("{} in a PID namespace", kMostPids));
    });
  });
  if (inside.state == ProbeState::kOk || std::atoi(outside.c_str()) < kMostPids) {
    inside.detail += fmt::format(" (machine: {})", outside);
    return inside;
  }
  return found(fmt::format("{} for the whole machine", outside));
}

Finding probe_pidfd_getfd() {
  return run_in_child([] {
    int ends[2];
    if (::pipe(ends) != 0) return lacking_errno("pipe");
    const pid_t child = ::fork();
    if (child == 0) {
      for (;;) ::pause();
    }
    UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
    UniqueFd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), ends[1], 0)));
    Finding finding =
        copy ? found("descriptors can be taken out of a process") : lacking_errno("pidfd_getfd");
    char byte = 'x';
    if (copy && (::write(copy.get(), &byte, 1) != 1 || ::read(ends[0], &byte, 1) != 1))
      finding = lacking("the descriptor that pidfd_getfd returned is not the one asked for");
    ::kill(child, SIGKILL);
    return finding;
  });
}

Finding probe_ptrace() {
  // krgd traces programs that are not its descendants: a sibling in a user namespace of ours.
  return run_in_child([] {
    const std::string scope = first_line("/proc/sys/kernel/yama/ptrace_scope");
    if (auto done = enter_own_namespaces(0); !done) return lacking(done.error().message());
    const pid_t program = ::fork();
    if (program == 0) {
      for (;;) ::pause();
    }
    Finding finding = run_in_child([program] {
      if (::ptrace(PTRACE_SEIZE, program, nullptr, nullptr) != 0)
        return lacking_errno("PTRACE_SEIZE of a process that is no child");
      return found("processes of a session can be traced");
    });
    ::kill(program, SIGKILL);
    if (!scope.empty()) finding.detail += fmt::format(" (yama ptrace_scope {})", scope);
    return finding;
  });
}

}  // namespace krg
