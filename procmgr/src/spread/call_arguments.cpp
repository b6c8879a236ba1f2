// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/call_arguments.h"

#include <limits.h>
#include <mqueue.h>
#include <sys/ioctl.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstring>

namespace krg {
namespace {

using Use = CallArgument::Use;

constexpr uint64_t kMostOfMask = 8192;       // bytes: of 65,536 processors
constexpr uint64_t kMostOfAttributes = 128;  // sched_attr has 56 so far
constexpr uint64_t kMostOperations = 500;    // SEMOPM
constexpr uint64_t kMostName = NAME_MAX + 2;
constexpr uint64_t kType = sizeof(long);  // what a message begins with

using Arguments = std::vector<CallArgument>;

Arguments of_semctl(const user_regs_struct& call) {
  switch (static_cast<int>(call.rdx) & ~0x100) {  // IPC_64
    case IPC_SET:
      return {{3, sizeof(semid_ds), Use::kRead}};
    case IPC_STAT:
    case SEM_STAT:
    case SEM_STAT_ANY:
      return {{3, sizeof(semid_ds), Use::kWritten}};
    case IPC_INFO:
    case SEM_INFO:
      return {{3, sizeof(seminfo), Use::kWritten}};
    default:
      return {};
  }
}

Arguments of_msgctl(const user_regs_struct& call) {
  switch (static_cast<int>(call.rsi) & ~0x100) {
    case IPC_SET:
      return {{2, sizeof(msqid_ds), Use::kRead}};
    case IPC_STAT:
    case MSG_STAT:
    case MSG_STAT_ANY:
      return {{2, sizeof(msqid_ds), Use::kWritten}};
    case IPC_INFO:
    case MSG_INFO:
      return {{2, sizeof(msginfo), Use::kWritten}};
    default:
      return {};
  }
}

Arguments of_shmctl(const user_regs_struct& call) {
  switch (static_cast<int>(call.rsi) & ~0x100) {
    case IPC_SET:
      return {{2, sizeof(shmid_ds), Use::kRead}};
    case IPC_STAT:
    case SHM_STAT:
    case SHM_STAT_ANY:
      return {{2, sizeof(shmid_ds), Use::kWritten}};
    case IPC_INFO:
      return {{2, sizeof(shminfo), Use::kWritten}};
    case SHM_INFO:
      return {{2, sizeof(shm_info), Use::kWritten}};
    default:
      return {};
  }
}

Arguments of_ioctl(const user_regs_struct& call) {
  switch (call.rsi) {
    case TIOCSPGRP:
      return {{2, sizeof(pid_t), Use::kRead}};
    case TIOCGPGRP:
    case TIOCGSID:
      return {{2, sizeof(pid_t), Use::kWritten}};
    default:
      return {};
  }
}

Arguments all_arguments(const user_regs_struct& call) {
  switch (call.orig_rax) {
    case SYS_sched_getaffinity:
      return {{2, std::min<uint64_t>(call.rsi, kMostOfMask), Use::kResult}};
    case SYS_sched_getparam:
      return {{1, sizeof(int), Use::kWritten}};
    case SYS_sched_setparam:
      return {{1, sizeof(int), Use::kRead}};
    case SYS_sched_setscheduler:
      return {{2, sizeof(int), Use::kRead}};
    case SYS_sched_getattr:
      return {{1, std::min<uint64_t>(call.rdx, kMostOfAttributes), Use::kOwnSize}};
    case SYS_sched_setattr:
      return {{1, kMostOfAttributes, Use::kReadUpTo}};
    case SYS_prlimit64:
      return {{2, sizeof(rlimit), Use::kRead}, {3, sizeof(rlimit), Use::kWritten}};
    case SYS_sysinfo:
      return {{0, sizeof(struct sysinfo), Use::kWritten}};
    case SYS_times:
      return {{0, sizeof(tms), Use::kWritten}};
    case SYS_getrusage:
      return {{1, sizeof(rusage), Use::kWritten}};
    case SYS_wait4:
      if (call.r10 == 0) return {};  // the kernel's own
      return {{1, sizeof(int), Use::kWritten}, {3, sizeof(rusage), Use::kWritten}};
    case SYS_waitid:
      if (call.r8 == 0) return {};
      return {{2, sizeof(siginfo_t), Use::kWritten}, {4, sizeof(rusage), Use::kWritten}};
    case SYS_rt_sigqueueinfo:
    case SYS_pidfd_send_signal:
      return {{2, sizeof(siginfo_t), Use::kRead}};
    case SYS_rt_tgsigqueueinfo:
      return {{3, sizeof(siginfo_t), Use::kRead}};
    case SYS_semop:
      return {{1, std::min<uint64_t>(call.rdx, kMostOperations) * sizeof(sembuf), Use::kRead}};
    case SYS_semtimedop:
      return {{1, std::min<uint64_t>(call.rdx, kMostOperations) * sizeof(sembuf), Use::kRead},
              {3, sizeof(timespec), Use::kRead}};
    case SYS_semctl:
      return of_semctl(call);
    case SYS_msgsnd:
      return {{1, kType + call.rdx, Use::kRead}};
    case SYS_msgrcv:
      return {{1, kType + call.rdx, Use::kResult, kType}};
    case SYS_msgctl:
      return of_msgctl(call);
    case SYS_shmctl:
      return of_shmctl(call);
    case SYS_mq_open:
      return {{0, kMostName, Use::kReadUpTo}, {3, sizeof(mq_attr), Use::kRead}};
    case SYS_mq_unlink:
      return {{0, kMostName, Use::kReadUpTo}};
    case SYS_mq_timedsend:
      return {{1, call.rdx, Use::kRead}, {4, sizeof(timespec), Use::kRead}};
    case SYS_mq_timedreceive:
      return {{1, call.rdx, Use::kResult},
              {3, sizeof(unsigned), Use::kWritten},
              {4, sizeof(timespec), Use::kRead}};
    case SYS_mq_notify:
      return {{1, sizeof(sigevent), Use::kRead}};
    case SYS_mq_getsetattr:
      return {{1, sizeof(mq_attr), Use::kRead}, {2, sizeof(mq_attr), Use::kWritten}};
    case SYS_inotify_add_watch:
      return {{1, PATH_MAX, Use::kReadUpTo}};
    case SYS_ioctl:
      return of_ioctl(call);
    default:
      return {};
  }
}

}  // namespace

uint64_t argument(const user_regs_struct& call, unsigned index) {
  const uint64_t all[] = {call.rdi, call.rsi, call.rdx, call.r10, call.r8, call.r9};
  return all[index];
}

void set_argument(user_regs_struct& call, unsigned index, uint64_t value) {
  using Register = unsigned long long;
  Register* const all[] = {&call.rdi, &call.rsi, &call.rdx, &call.r10, &call.r8, &call.r9};
  *all[index] = value;
}

std::vector<CallArgument> arguments_for_krgd(const user_regs_struct& call) {
  Arguments found = all_arguments(call);
  std::erase_if(found, [&](const CallArgument& one) {
    return argument(call, one.index) == 0 || one.bytes == 0;
  });
  return found;
}

uint64_t bytes_written(const CallArgument& one, uint64_t result, std::string_view contents) {
  uint32_t said = 0;
  switch (one.use) {
    case Use::kWritten:
      return one.bytes;
    case Use::kResult:
      return std::min(one.bytes, one.before + result);
    case Use::kOwnSize:
      if (contents.size() < sizeof said) return 0;
      std::memcpy(&said, contents.data(), sizeof said);
      return std::min<uint64_t>(one.bytes, said);
    default:
      return 0;
  }
}

}  // namespace krg
