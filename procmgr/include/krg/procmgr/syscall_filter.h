// SyscallFilter: the classic BPF program that stops the few system calls that may need a
// cluster-wide answer (SECCOMP_RET_USER_NOTIF) and lets everything else pass untouched. The kernel
// keeps a bitmap of the numbers that a filter always allows (5.11), so other calls cost nothing.
//
// number                                       stops when
// mmap                                         shared
// shmget, shmat, shmdt, shmctl                 always
// execve, execveat, fork                       always
// clone                                        without CLONE_VM
// kill                                         pid <= 0 or of another node; signal SIGSTOP,
//                                                SIGCONT
// tgkill, tkill, rt_sigqueueinfo,              pid of another node; signal SIGSTOP
//   rt_tgsigqueueinfo
// pidfd_open, process_vm_readv/writev, kcmp    pid of another node (kcmp: either)
// pidfd_send_signal                            always (a directory of /proc may stand for a pidfd)
// ptrace                                       PTRACE_ATTACH, PTRACE_SEIZE
// getpgid, getsid, setpgid, setsid,            always
//   getppid, getpgrp
// getpriority, setpriority, ioprio_get/set     a pid that is not 0; a process group
// sched_{get,set}{param,scheduler,attr},       a pid that is not 0
//   prlimit64
// sched_{get,set}affinity, sysinfo, times      always
// getrusage                                    RUSAGE_CHILDREN
// wait4, waitid                                with a place for the children's usage; always in a
//                                                body that has left children at its origin
// futex                                        without FUTEX_PRIVATE_FLAG; neither FUTEX_WAKE nor
//                                                FUTEX_WAKE_OP
// futex_wait                                   without FUTEX2_PRIVATE
// futex_waitv, futex_requeue                   always
// semget, semop, semtimedop, semctl,           always
//   msgget, msgsnd, msgrcv, msgctl,
//   mq_open, mq_unlink, mq_timedsend,
//   mq_timedreceive, mq_notify,
//   mq_getsetattr
// ioctl                                        TIOCSPGRP, TIOCGPGRP, TIOCGSID, TIOCSCTTY
// mmap                                         private, anonymous, writable, 128 KiB or more;
//                                                memory of other nodes only (as the next four)
// brk                                          to grow or shrink the heap
// mremap, clone3                               always
// madvise                                      MADV_DONTNEED, MADV_FREE, MADV_DOFORK
// clone3                                       always; where threads may run on other nodes, too
// msync, munmap                                from an address in that window; where files may be
//                                                mapped over nodes
// clone3                                       refused (ENOSYS) where krgd is to see each fork, and
//                                                nothing above has it stopped
// fstat, newfstatat, statx                     of descriptor 0, 1 or 2 itself, and of those
//                                                that came as streams; bodies only
//
// "of another node" is a comparison of the pid's upper bits: a shadow has a pid of this node, so a
// signal reaches it natively and it passes it on; SIGSTOP is stopped here since a shadow cannot
// catch it, and SIGCONT so that neither overtakes the other.
//
// Any of them passes when its sixth argument, which none of them uses but futex (32 bits of it), is
// kUnnotifiedCookie: for calls that our own programs make in the session. mmap, which uses it,
// passes when the upper half of its flags, which the kernel ignores, is the cookie's
// (kUnnotifiedMapFlags).
//
// Threads: a built filter is immutable. Source: seccomp(2), seccomp_unotify(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/filter.h>

#include <span>
#include <vector>

#include "krg/procmgr/pid_range.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

struct SyscallFilterConfig {
  PidRange pids;  // of the node that the filtered processes execute on
  // For a body: its standard descriptors may be streams, whose type krgfs cannot show; and those
  // that it has as streams beside (the first sixteen of them).
  bool standard_streams = false;
  std::vector<int> streams = {};
  // For a body that has left children at its origin: any wait may be for one of them.
  bool all_waits = false;
  // Processes may use memory of other nodes (remote_memory.h).
  bool remote_memory = false;
  // Processes may have threads on other nodes (spreading.h).
  bool distant_threads = false;
  // Files may be mapped over nodes (shared_memory.h).
  bool shared_files = false;
  // Krgd has to see each fork (fork_sight.h).
  bool forks_by_clone = false;
};

class SyscallFilter {
 public:
  explicit SyscallFilter(const SyscallFilterConfig& config);

  // Filters the calling thread and all that it forks from now on; returns the listener
  // (close-on-exec). Sets no_new_privs only where the caller lacks CAP_SYS_ADMIN in its user
  // namespace. Async-signal-safe and without allocation, so that a vfork child may call it. Errors:
  // EBUSY when a listener is installed already (listeners cannot be stacked).
  Result<UniqueFd> install() const;
  std::span<const sock_filter> program() const { return program_; }

 private:
  std::vector<sock_filter> program_;
};

// Builds and installs. Not for a vfork child.
Result<UniqueFd> install_syscall_filter(const SyscallFilterConfig& config);

// execve(2) that the filter does not stop: for the first exec of a body or job, when nobody reads
// the listener yet. Async-signal-safe. Returns only on failure, with errno set.
int exec_unnotified(const char* path, char* const argv[], char* const envp[]) noexcept;
// Likewise fexecve(3).
int exec_unnotified_fd(int program, char* const argv[], char* const envp[]) noexcept;

}  // namespace krg
