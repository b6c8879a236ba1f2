// Holds procmgr/SIGNALS.md and the filter together: the same system calls, no more, no less.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include "ipc/futex_abi.h"
#include "krg/procmgr/syscall_filter.h"

namespace krg {
namespace {

const std::map<std::string, int> kNumbers = {
    {"mmap", SYS_mmap},
    {"shmget", SYS_shmget},
    {"shmat", SYS_shmat},
    {"shmdt", SYS_shmdt},
    {"shmctl", SYS_shmctl},
    {"execve", SYS_execve},
    {"fork", SYS_fork},
    {"clone", SYS_clone},
    {"execveat", SYS_execveat},
    {"kill", SYS_kill},
    {"tkill", SYS_tkill},
    {"tgkill", SYS_tgkill},
    {"rt_sigqueueinfo", SYS_rt_sigqueueinfo},
    {"rt_tgsigqueueinfo", SYS_rt_tgsigqueueinfo},
    {"prlimit64", SYS_prlimit64},
    {"sched_getscheduler", SYS_sched_getscheduler},
    {"sched_setscheduler", SYS_sched_setscheduler},
    {"sched_getparam", SYS_sched_getparam},
    {"sched_setparam", SYS_sched_setparam},
    {"sched_getattr", SYS_sched_getattr},
    {"sched_setattr", SYS_sched_setattr},
    {"getpriority", SYS_getpriority},
    {"setpriority", SYS_setpriority},
    {"ioprio_get", SYS_ioprio_get},
    {"ioprio_set", SYS_ioprio_set},
    {"sched_getaffinity", SYS_sched_getaffinity},
    {"sched_setaffinity", SYS_sched_setaffinity},
    {"sysinfo", SYS_sysinfo},
    {"ptrace", SYS_ptrace},
    {"process_vm_readv", SYS_process_vm_readv},
    {"process_vm_writev", SYS_process_vm_writev},
    {"kcmp", SYS_kcmp},
    {"pidfd_open", SYS_pidfd_open},
    {"pidfd_send_signal", SYS_pidfd_send_signal},
    {"listen", SYS_listen},
    {"inotify_add_watch", SYS_inotify_add_watch},
    {"inotify_rm_watch", SYS_inotify_rm_watch},
    {"getppid", SYS_getppid},
    {"getpgrp", SYS_getpgrp},
    {"getpgid", SYS_getpgid},
    {"getsid", SYS_getsid},
    {"setpgid", SYS_setpgid},
    {"setsid", SYS_setsid},
    {"getrusage", SYS_getrusage},
    {"times", SYS_times},
    {"wait4", SYS_wait4},
    {"waitid", SYS_waitid},
    {"futex", SYS_futex},
    {"futex_waitv", kFutexWaitv},
    {"futex_wait", kFutexWait},
    {"futex_requeue", kFutexRequeue},
    {"semget", SYS_semget},
    {"semop", SYS_semop},
    {"semtimedop", SYS_semtimedop},
    {"semctl", SYS_semctl},
    {"msgget", SYS_msgget},
    {"msgsnd", SYS_msgsnd},
    {"msgrcv", SYS_msgrcv},
    {"msgctl", SYS_msgctl},
    {"mq_open", SYS_mq_open},
    {"mq_unlink", SYS_mq_unlink},
    {"mq_timedsend", SYS_mq_timedsend},
    {"mq_timedreceive", SYS_mq_timedreceive},
    {"mq_notify", SYS_mq_notify},
    {"mq_getsetattr", SYS_mq_getsetattr},
    {"msync", SYS_msync},
    {"munmap", SYS_munmap},
    {"madvise", SYS_madvise},
    {"fcntl", SYS_fcntl},
    {"ioctl", SYS_ioctl},
    {"fstat", SYS_fstat},
    {"newfstatat", SYS_newfstatat},
    {"statx", SYS_statx},
};

// What the kernel does with the few classic BPF instructions that the filter is made of.
uint32_t run_filter(std::span<const sock_filter> program, const seccomp_data& data) {
  uint32_t accumulator = 0;
  for (size_t at = 0; at < program.size(); ++at) {
    const sock_filter& f = program[at];
    switch (f.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        memcpy(&accumulator, reinterpret_cast<const char*>(&data) + f.k, sizeof accumulator);
        break;
      case BPF_ALU | BPF_RSH | BPF_K:
        accumulator >>= f.k;
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        accumulator &= f.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        at += accumulator == f.k ? f.jt : f.jf;
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        at += accumulator >= f.k ? f.jt : f.jf;
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        at += (accumulator & f.k) != 0 ? f.jt : f.jf;
        break;
      case BPF_JMP | BPF_JA:
        at += f.k;
        break;
      case BPF_RET | BPF_K:
        return f.k;
      default:
        ADD_FAILURE() << "unknown instruction " << f.code;
        return SECCOMP_RET_ALLOW;
    }
  }
  return SECCOMP_RET_ALLOW;
}

// Tries each argument with every constant that the filter compares with, beside usual values.
bool can_stop(std::span<const sock_filter> program, int number) {
  std::set<uint64_t> values{0, 1, static_cast<uint64_t>(-1), 3u << 20};
  for (const sock_filter& f : program)
    if (BPF_CLASS(f.code) == BPF_JMP) {
      values.insert(f.k);
      values.insert(uint64_t{f.k} << 32);  // compared with an upper half
    }
  for (unsigned changed = 0; changed < 5; ++changed)
    for (uint64_t value : values) {
      seccomp_data data{};
      data.nr = number;
      data.arch = AUDIT_ARCH_X86_64;
      data.args[changed] = value;
      if (run_filter(program, data) == SECCOMP_RET_USER_NOTIF) return true;
    }
  return false;
}

// The words in backticks in the first column of the table.
std::set<std::string> documented_calls() {
  std::ifstream file(KRG_SIGNALS_DOC);
  EXPECT_TRUE(file) << KRG_SIGNALS_DOC;
  std::set<std::string> names;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("| `")) continue;
    const std::string cell = line.substr(2, line.find('|', 2) - 2);
    for (size_t from = 0, open; (open = cell.find('`', from)) != std::string::npos;) {
      const size_t close = cell.find('`', open + 1);
      names.insert(cell.substr(open + 1, close - open - 1));
      from = close + 1;
    }
  }
  return names;
}

TEST(SignalsDoc, ListsWhatTheFilterStops) {
  const SyscallFilter filter(
      {.pids = PidRange(NodeId{0}, 4), .standard_streams = true, .shared_files = true});
  std::set<int> stopped;
  for (int number = 0; number < 512; ++number)
    if (can_stop(filter.program(), number)) stopped.insert(number);
  std::set<int> documented;
  for (const std::string& name : documented_calls()) {
    ASSERT_TRUE(kNumbers.contains(name)) << name << " is not known to this test";
    documented.insert(kNumbers.at(name));
  }
  for (int number : stopped)
    EXPECT_TRUE(documented.contains(number)) << "call " << number << " is missing in SIGNALS.md";
  for (const auto& [name, number] : kNumbers)
    if (documented.contains(number)) {
      EXPECT_TRUE(stopped.contains(number)) << "SIGNALS.md has " << name << ", not the filter";
    }
}

}  // namespace
}  // namespace krg
