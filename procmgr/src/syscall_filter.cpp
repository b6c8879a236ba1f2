// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/syscall_filter.h"

#include <asm/termbits.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <initializer_list>
#include <map>

#include "ipc/futex_abi.h"
#include "krg/procmgr/remote_memory.h"
#include "krg/procmgr/shared_window.h"

namespace krg {
namespace {

// When a rule stops a call; `arg` is the argument it looks at.
enum class When {
  kAlways,
  kRefused,            // always; it is not stopped then, but fails as one that does not exist
  kForeignPid,         // a pid, neither 0 nor of this node
  kGroupOrForeignPid,  // 0, negative, or of another node
  kNonZero,            // the lower 32 bits are not 0
  kPointer,            // all 64 bits: not null
  kValue,              // the lower 32 bits are `value`
  kSharedFutex,        // of futex: not private, no wake
  kSharedPlace,        // an address in the window of shared memory
  kShared,             // flags of mmap: shared
  kBitClear,           // none of the bits `value` is set
  kLargePrivate,       // flags of mmap: private, anonymous; large and writable
  kStream,             // 0, 1, 2 or one of the streams beside
  kStreamItself,       // argument 0 is one of these, and `arg` has AT_EMPTY_PATH
};
struct Rule {
  int number;
  When when;
  unsigned arg = 0;
  uint32_t value = 0;
};

constexpr unsigned kCookieArgument = 5;
constexpr size_t kMostStreams = 16;  // beside the standard ones
// Of an address's upper half: what tells whether it lies in the window.
constexpr uint32_t kWindowMask = static_cast<uint32_t>(~((kSharedWindowBytes - 1) >> 32));
static_assert((kSharedWindow & (kSharedWindowBytes - 1)) == 0);
constexpr uint32_t kPriorityOfProcess = PRIO_PROCESS, kPriorityOfGroup = PRIO_PGRP;
constexpr uint32_t kIoPriorityOfProcess = 1, kIoPriorityOfGroup = 2;  // ioprio_set(2)

// Any rule of its number stops the call.
constexpr Rule kRules[] = {
    {SYS_mmap, When::kShared, 3},
    {SYS_execve, When::kAlways},
    {SYS_execveat, When::kAlways},
    {SYS_fork, When::kAlways},
    {SYS_clone, When::kBitClear, 0, CLONE_VM},
    {SYS_kill, When::kGroupOrForeignPid, 0},
    {SYS_kill, When::kValue, 1, SIGSTOP},
    {SYS_kill, When::kValue, 1, SIGCONT},
    {SYS_tgkill, When::kForeignPid, 0},
    {SYS_tgkill, When::kValue, 2, SIGSTOP},
    {SYS_tkill, When::kForeignPid, 0},
    {SYS_tkill, When::kValue, 1, SIGSTOP},
    {SYS_rt_sigqueueinfo, When::kForeignPid, 0},
    {SYS_rt_sigqueueinfo, When::kValue, 1, SIGSTOP},
    {SYS_rt_tgsigqueueinfo, When::kForeignPid, 0},
    {SYS_rt_tgsigqueueinfo, When::kValue, 2, SIGSTOP},
    {SYS_pidfd_open, When::kForeignPid, 0},
    {SYS_pidfd_send_signal, When::kAlways},
    {SYS_listen, When::kAlways},
    {SYS_inotify_add_watch, When::kAlways},
    {SYS_inotify_rm_watch, When::kAlways},
    {SYS_process_vm_readv, When::kAlways},
    {SYS_process_vm_writev, When::kAlways},
    {SYS_kcmp, When::kForeignPid, 0},
    {SYS_kcmp, When::kForeignPid, 1},
    {SYS_ptrace, When::kValue, 0, PTRACE_ATTACH},
    {SYS_ptrace, When::kValue, 0, PTRACE_SEIZE},
    {SYS_ptrace, When::kValue, 0, PTRACE_TRACEME},
    {SYS_getpgid, When::kAlways},
    {SYS_getsid, When::kAlways},
    {SYS_setpgid, When::kAlways},
    {SYS_setsid, When::kAlways},
    {SYS_getppid, When::kAlways},
    {SYS_getpgrp, When::kAlways},
    {SYS_getpriority, When::kNonZero, 1},
    {SYS_getpriority, When::kValue, 0, kPriorityOfGroup},
    {SYS_setpriority, When::kNonZero, 1},
    {SYS_setpriority, When::kValue, 0, kPriorityOfGroup},
    {SYS_ioprio_get, When::kNonZero, 1},
    {SYS_ioprio_get, When::kValue, 0, kIoPriorityOfGroup},
    {SYS_ioprio_set, When::kNonZero, 1},
    {SYS_ioprio_set, When::kValue, 0, kIoPriorityOfGroup},
    {SYS_sched_getparam, When::kNonZero, 0},
    {SYS_sched_setparam, When::kNonZero, 0},
    {SYS_sched_getscheduler, When::kNonZero, 0},
    {SYS_sched_setscheduler, When::kNonZero, 0},
    {SYS_sched_getattr, When::kNonZero, 0},
    {SYS_sched_setattr, When::kNonZero, 0},
    {SYS_sched_setaffinity, When::kAlways},
    {SYS_prlimit64, When::kNonZero, 0},
    {SYS_sched_getaffinity, When::kAlways},
    {SYS_sysinfo, When::kAlways},
    {SYS_times, When::kAlways},
    {SYS_getrusage, When::kValue, 0, static_cast<uint32_t>(RUSAGE_CHILDREN)},
    {SYS_wait4, When::kPointer, 3},
    {SYS_waitid, When::kPointer, 4},
    {SYS_futex, When::kSharedFutex},
    {kFutexWaitv, When::kAlways},
    {kFutexWait, When::kBitClear, 3, kFutexPrivate},
    {kFutexRequeue, When::kAlways},
    {SYS_semget, When::kAlways},
    {SYS_semop, When::kAlways},
    {SYS_semtimedop, When::kAlways},
    {SYS_semctl, When::kAlways},
    {SYS_msgget, When::kAlways},
    {SYS_msgsnd, When::kAlways},
    {SYS_msgrcv, When::kAlways},
    {SYS_msgctl, When::kAlways},
    {SYS_mq_open, When::kAlways},
    {SYS_mq_unlink, When::kAlways},
    {SYS_mq_timedsend, When::kAlways},
    {SYS_mq_timedreceive, When::kAlways},
    {SYS_mq_notify, When::kAlways},
    {SYS_mq_getsetattr, When::kAlways},
    {SYS_shmget, When::kAlways},
    {SYS_shmat, When::kAlways},
    {SYS_shmdt, When::kAlways},
    {SYS_shmctl, When::kAlways},
    {SYS_fcntl, When::kValue, 1, F_GETLK},
    {SYS_fcntl, When::kValue, 1, F_OFD_GETLK},
    {SYS_madvise, When::kValue, 2, MADV_REMOVE},
    {SYS_ioctl, When::kValue, 1, TIOCSPGRP},
    {SYS_ioctl, When::kValue, 1, TIOCGPGRP},
    {SYS_ioctl, When::kValue, 1, TIOCGSID},
    {SYS_ioctl, When::kValue, 1, TIOCSCTTY},
};
constexpr Rule kStreamRules[] = {
    {SYS_fstat, When::kStream, 0},
    {SYS_newfstatat, When::kStreamItself, 3},
    {SYS_statx, When::kStreamItself, 2},
};
constexpr Rule kAllWaitsRules[] = {
    {SYS_wait4, When::kAlways},
    {SYS_waitid, When::kAlways},
};
constexpr Rule kRemoteMemoryRules[] = {
    {SYS_mmap, When::kLargePrivate, 3},
    {SYS_brk, When::kPointer, 0},
    {SYS_mremap, When::kAlways},
    {SYS_madvise, When::kValue, 2, MADV_DONTNEED},
    {SYS_madvise, When::kValue, 2, MADV_FREE},
    {SYS_madvise, When::kValue, 2, MADV_DOFORK},
    {SYS_clone3, When::kAlways},
};
constexpr Rule kSharedFileRules[] = {
    {SYS_msync, When::kSharedPlace, 0},
    {SYS_munmap, When::kSharedPlace, 0},
};
constexpr Rule kDistantThreadRules[] = {
    {SYS_clone3, When::kAlways},
};
constexpr Rule kForksByCloneRules[] = {
    {SYS_clone3, When::kRefused},
};
static_assert(kPriorityOfProcess == 0 && kIoPriorityOfProcess == 1, "who is a pid then");

constexpr sock_filter load(size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}
constexpr sock_filter load_low(unsigned arg) {
  return load(offsetof(seccomp_data, args) + 8 * arg);
}
constexpr sock_filter load_high(unsigned arg) {
  return load(offsetof(seccomp_data, args) + 8 * arg + 4);
}
// Skips `equal` instructions when the accumulator is `value`, else `different`.
constexpr sock_filter branch(uint32_t value, uint8_t equal, uint8_t different) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, equal, different);
}
constexpr sock_filter answer(uint32_t action) {
  return BPF_STMT(BPF_RET | BPF_K, action);
}

// Installing a filter has the kernel try it on every system call number, to learn which ones it
// always allows: so the numbers stand in a search tree, and the rules behind it end in one place.
class Builder {
 public:
  explicit Builder(const SyscallFilterConfig& config)
      : config_(config),
        shift_(config.pids.shift()),
        self_(static_cast<uint32_t>(config.pids.first()) >> config.pids.shift()),
        streams_(streams_of(config)) {}

  std::vector<sock_filter> build() {
    // Calls of other instruction sets (32-bit) have other numbers: they pass.
    add({load(offsetof(seccomp_data, arch)), branch(AUDIT_ARCH_X86_64, 1, 0),
         answer(SECCOMP_RET_ALLOW), load(offsetof(seccomp_data, nr))});
    std::map<int, std::vector<Rule>> rules;
    for (const Rule& rule : kRules) rules[rule.number].push_back(rule);
    if (config_.standard_streams)
      for (const Rule& rule : kStreamRules) rules[rule.number].push_back(rule);
    if (config_.all_waits)
      for (const Rule& rule : kAllWaitsRules) rules[rule.number].push_back(rule);
    if (config_.remote_memory)
      for (const Rule& rule : kRemoteMemoryRules) rules[rule.number].push_back(rule);
    if (config_.distant_threads)
      for (const Rule& rule : kDistantThreadRules) rules[rule.number].push_back(rule);
    // What a clone3 shares stands in memory, which a filter does not see. Who is told of each does.
    if (config_.forks_by_clone && !rules.contains(SYS_clone3))
      for (const Rule& rule : kForksByCloneRules) rules[rule.number].push_back(rule);
    if (config_.shared_files)
      for (const Rule& rule : kSharedFileRules) rules[rule.number].push_back(rule);
    const std::vector<std::pair<int, std::vector<Rule>>> sorted(rules.begin(), rules.end());
    add_tree(sorted);
    add_end(stops_, SECCOMP_RET_USER_NOTIF);
    add_end(refusals_, SECCOMP_RET_ERRNO | ENOSYS);
    return std::move(program_);
  }

 private:
  using Numbers = std::span<const std::pair<int, std::vector<Rule>>>;

  void add(std::initializer_list<sock_filter> instructions) {
    for (const sock_filter& instruction : instructions) program_.push_back(instruction);
  }
  // Goes to what `numbers` has for the number in the accumulator.
  void add_tree(Numbers numbers) {
    if (numbers.size() == 1) return add_number(numbers[0].first, numbers[0].second);
    const Numbers lower = numbers.first(numbers.size() / 2);
    const Numbers upper = numbers.subspan(numbers.size() / 2);
    const size_t test = program_.size();
    add({BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, static_cast<uint32_t>(upper[0].first), 0, 0)});
    add_tree(lower);
    program_[test].jt = jump_from(test);
    add_tree(upper);
  }
  void add_number(int number, const std::vector<Rule>& rules) {
    const size_t test = program_.size();
    add({branch(static_cast<uint32_t>(number), 0, 0)});
    for (const Rule& rule : rules) add_rule(rule);
    program_[test].jf = jump_from(test);
    add({answer(SECCOMP_RET_ALLOW)});
  }
  // From a conditional jump to what is added next.
  uint8_t jump_from(size_t test) const {
    const size_t length = program_.size() - test - 1;
    check(length < 256, "a conditional jump of BPF reaches 255 instructions");
    return static_cast<uint8_t>(length);
  }
  // Where the calls go that are to be stopped, or refused: but for the cookie, they are.
  void add_end(const std::vector<size_t>& jumps, uint32_t action) {
    if (jumps.empty()) return;
    for (size_t jump : jumps) program_[jump].k = static_cast<uint32_t>(program_.size() - jump - 1);
    add({load_low(kCookieArgument), branch(static_cast<uint32_t>(kUnnotifiedCookie), 0, 3),
         load_high(kCookieArgument), branch(kUnnotifiedCookie >> 32, 0, 1),
         answer(SECCOMP_RET_ALLOW), answer(action)});
  }
  // Goes to where calls are stopped when the rule holds, else falls through.
  void add_rule(const Rule& rule) {
    add_condition(rule);
    (rule.when == When::kRefused ? refusals_ : stops_).push_back(program_.size());
    add({BPF_STMT(BPF_JMP | BPF_JA, 0)});
  }
  // Skips the one instruction behind it unless the rule holds.
  void add_condition(const Rule& rule) {
    const sock_filter node_of_pid = BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, shift_);
    switch (rule.when) {
      case When::kAlways:
      case When::kRefused:
        return;
      case When::kForeignPid:
        return add({load_low(rule.arg), branch(0, 3, 0), node_of_pid, branch(self_, 1, 0)});
      case When::kGroupOrForeignPid:
        return add({load_low(rule.arg), branch(0, 2, 0), node_of_pid, branch(self_, 1, 0)});
      case When::kNonZero:
        return add({load_low(rule.arg), branch(0, 1, 0)});
      case When::kPointer:
        return add({load_low(rule.arg), branch(0, 0, 2), load_high(rule.arg), branch(0, 1, 0)});
      case When::kValue:
        return add({load_low(rule.arg), branch(rule.value, 0, 1)});
      case When::kShared:  // and not one of ours, which are told by the upper half of flags
        return add({load_high(rule.arg), branch(kUnnotifiedCookie >> 32, 4, 0), load_low(rule.arg),
                    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, MAP_SHARED), branch(MAP_SHARED, 0, 1)});
      case When::kSharedPlace:
        return add({load_high(rule.arg), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, kWindowMask),
                    branch(kSharedWindow >> 32, 0, 1)});
      case When::kSharedFutex:
        return add({load_low(1), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, FUTEX_PRIVATE_FLAG, 4, 0),
                    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, static_cast<uint32_t>(FUTEX_CMD_MASK)),
                    branch(FUTEX_WAKE, 2, 0), branch(FUTEX_WAKE_OP, 1, 0)});
      case When::kLargePrivate:  // the length's upper half says more than its lower one
        return add(
            {load_low(rule.arg), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~uint32_t{MAP_POPULATE}),
             branch(MAP_PRIVATE | MAP_ANONYMOUS, 0, 7), load_low(2),
             BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_WRITE, 0, 5), load_high(1), branch(0, 0, 2),
             load_low(1), BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kLeastRemoteMapping, 0, 1)});
      case When::kBitClear:
        return add({load_low(rule.arg), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, rule.value, 1, 0)});
      case When::kStreamItself:
        add({load_low(rule.arg), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, AT_EMPTY_PATH, 0,
                                          static_cast<uint8_t>(streams_.size() + 2))});
        return add_is_stream(0);
      case When::kStream:
        return add_is_stream(rule.arg);
    }
  }
  void add_is_stream(unsigned arg) {
    add({load_low(arg)});
    for (size_t after = streams_.size(); after-- > 0;)
      add({branch(streams_[streams_.size() - 1 - after], static_cast<uint8_t>(after),
                  after == 0 ? 1 : 0)});
  }

  static std::vector<uint32_t> streams_of(const SyscallFilterConfig& config) {
    std::vector<uint32_t> streams{0, 1, 2};
    const size_t more = std::min(config.streams.size(), kMostStreams);
    streams.insert(streams.end(), config.streams.begin(), config.streams.begin() + more);
    return streams;
  }

  const SyscallFilterConfig& config_;
  const uint32_t shift_, self_;
  const std::vector<uint32_t> streams_;
  std::vector<sock_filter> program_;
  std::vector<size_t> stops_, refusals_;  // jumps to add_end()'s
};

}  // namespace

SyscallFilter::SyscallFilter(const SyscallFilterConfig& config)
    : program_(Builder(config).build()) {}

Result<UniqueFd> SyscallFilter::install() const {
  sock_fprog program{static_cast<unsigned short>(program_.size()),
                     const_cast<sock_filter*>(program_.data())};
  // Once krgd has a call in hand, only a fatal signal ends the wait: a signal with a handler does
  // not make execve fail with EINTR (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, kernel 5.19).
  const unsigned long flags =
      SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
  long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
  if (listener < 0 && errno == EACCES) {  // neither CAP_SYS_ADMIN nor no_new_privs
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno_error("no_new_privs");
    listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
  }
  if (listener < 0) return errno_error("seccomp");
  return UniqueFd(static_cast<int>(listener));
}

Result<UniqueFd> install_syscall_filter(const SyscallFilterConfig& config) {
  return SyscallFilter(config).install();
}

int exec_unnotified(const char* path, char* const argv[], char* const envp[]) noexcept {
  return static_cast<int>(syscall(SYS_execve, path, argv, envp, 0L, 0L, kUnnotifiedCookie));
}

int exec_unnotified_fd(int program, char* const argv[], char* const envp[]) noexcept {
  return static_cast<int>(
      syscall(SYS_execveat, program, "", argv, envp, AT_EMPTY_PATH, kUnnotifiedCookie));
}

}  // namespace krg
