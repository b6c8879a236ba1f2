// Two nodes in one process and PID namespace: programs under the filter are born on node 0, their
// targets have pids of node 1. SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/signals.h"

#include <linux/kcmp.h>
#include <linux/sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "krg/procmgr/process_vm_calls.h"
#include "loopback_nodes.h"
#include "testing/filtered_child.h"

namespace krg {
namespace {

using testing::FilteredChild;

constexpr uid_t kAlice = 4242;

struct Node {
  explicit Node(NodeContext& node) : context(node) { context.jobs = &jobs; }
  NodeContext& context;
  JobNamespaces jobs;
  SyscallBroker broker{context.loop};
  ProcessTable table{context};
  PidCalls pid_calls{context, broker, table};
  ProcessVmCalls process_vm_calls{context, broker, pid_calls};
  Signals signals{context, broker, table, jobs, pid_calls};
};

// A process with a chosen pid that waits for a signal and then for its end.
class Target {
 public:
  explicit Target(pid_t pid, uid_t uid = 0) : pid_(pid) {
    void* shared =
        mmap(nullptr, sizeof(siginfo_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    info_ = static_cast<siginfo_t*>(shared);
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    clone_args args{};
    args.exit_signal = SIGCHLD;
    args.set_tid = reinterpret_cast<uint64_t>(&pid);
    args.set_tid_size = 1;
    const long child = syscall(SYS_clone3, &args, sizeof args);
    if (child == 0) run(uid, all);
    EXPECT_EQ(child, pid_);
    setpgid(pid_, pid_);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    while (child > 0 && std::atomic_ref<int>(info_->si_errno).load() == 0 &&
           waitpid(pid_, nullptr, WNOHANG) == 0)
      usleep(1000);  // until it has the uid that it is to have
  }
  ~Target() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    munmap(info_, sizeof(siginfo_t));
  }
  pid_t pid() const { return pid_; }
  // The first signal that came; si_signo 0: none within a second.
  siginfo_t signal() const {
    for (int i = 0; i < 200 && number() == 0; ++i) usleep(5000);
    return *info_;
  }

 private:
  int number() const { return std::atomic_ref<int>(info_->si_signo).load(); }
  [[noreturn]] void run(uid_t uid, const sigset_t& all) {
    // The C library's own would wait for a lock that another thread had when this process was made.
    if (uid != 0 && syscall(SYS_setresuid, uid, uid, uid) != 0) _exit(1);
    std::atomic_ref<int>(info_->si_errno).store(1);
    siginfo_t info{};
    sigwaitinfo(&all, &info);
    const int signal = std::exchange(info.si_signo, 0);
    *info_ = info;
    std::atomic_ref<int>(info_->si_signo).store(signal);
    for (;;) pause();
  }
  pid_t pid_;
  siginfo_t* info_;
};

class SignalsTest : public ::testing::Test {
 protected:
  // Runs a program on node 0; its exit status.
  int run(std::function<int()> program) {
    FilteredChild child(here.broker, std::move(program), here.context.pids);
    program_pid = child.pid();
    const int status = child.wait_in(nodes.loop());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  // The errno of a call that the program makes; 0 when it succeeds.
  int error_of(std::function<long()> call) {
    return run([&] { return call() < 0 ? errno : 0; });
  }
  pid_t pid_of_node_1() { return nodes[1].pids.first() + 300 + next_++; }

  LoopbackNodes nodes{2};
  Node here{nodes[0]}, there{nodes[1]};
  pid_t program_pid = 0;
  static inline int next_ = 0;
};

TEST_F(SignalsTest, KillReachesAProcessOfAnotherNode) {
  Target target(pid_of_node_1());
  EXPECT_EQ(error_of([&] { return kill(target.pid(), SIGUSR1); }), 0);
  const siginfo_t info = target.signal();
  EXPECT_EQ(info.si_signo, SIGUSR1);
  EXPECT_EQ(info.si_code, SI_USER);
}

TEST_F(SignalsTest, ProbesTellWhetherAProcessIsThere) {
  Target target(pid_of_node_1());
  EXPECT_EQ(error_of([&] { return kill(target.pid(), 0); }), 0);
  EXPECT_EQ(error_of([&] { return kill(target.pid() + 5000, 0); }), ESRCH);
  EXPECT_EQ(error_of([&] { return kill(target.pid(), 99); }), EINVAL);
  EXPECT_EQ(error_of([&] { return kill(3 << 20, 0); }), ESRCH) << "a pid of no node";
}

TEST_F(SignalsTest, AQueuedSignalCarriesItsValue) {
  Target target(pid_of_node_1());
  EXPECT_EQ(error_of([&] { return sigqueue(target.pid(), SIGRTMIN + 1, {.sival_int = 4711}); }), 0);
  const siginfo_t info = target.signal();
  EXPECT_EQ(info.si_signo, SIGRTMIN + 1);
  EXPECT_EQ(info.si_code, SI_QUEUE);
  EXPECT_EQ(info.si_pid, program_pid);
  EXPECT_EQ(info.si_value.sival_int, 4711);
}

TEST_F(SignalsTest, ThreadsAreReachedToo) {
  Target first(pid_of_node_1()), second(pid_of_node_1());
  EXPECT_EQ(error_of([&] { return syscall(SYS_tkill, first.pid(), SIGUSR1); }), 0);
  EXPECT_EQ(first.signal().si_signo, SIGUSR1);
  EXPECT_EQ(error_of([&] { return syscall(SYS_tgkill, second.pid(), second.pid(), SIGUSR2); }), 0);
  EXPECT_EQ(second.signal().si_signo, SIGUSR2);
}

TEST_F(SignalsTest, AnotherUsersProcessIsProtected) {
  Target target(pid_of_node_1());
  EXPECT_EQ(error_of([&] {
              if (setresuid(kAlice, kAlice, kAlice) != 0) return -1;
              return kill(target.pid(), SIGTERM);
            }),
            EPERM);
  Target own(pid_of_node_1(), kAlice);
  EXPECT_EQ(error_of([&] {
              if (setresuid(kAlice, kAlice, kAlice) != 0) return -1;
              return kill(own.pid(), SIGTERM);
            }),
            0);
  EXPECT_EQ(own.signal().si_uid, kAlice);
}

TEST_F(SignalsTest, AGroupOfAnotherNodeIsReached) {
  Target leader(pid_of_node_1()), member(pid_of_node_1());
  ASSERT_EQ(setpgid(member.pid(), leader.pid()), 0);
  EXPECT_EQ(error_of([&] { return kill(-leader.pid(), SIGHUP); }), 0);
  EXPECT_EQ(leader.signal().si_signo, SIGHUP);
  EXPECT_EQ(member.signal().si_signo, SIGHUP);
  EXPECT_EQ(error_of([&] { return kill(-(leader.pid() + 5000), SIGHUP); }), ESRCH);
}

TEST_F(SignalsTest, AGroupWithAShadowIsSignalledByKrgd) {
  Target shadow(nodes[0].pids.first() + 20'000);
  here.table.add_shadow(shadow.pid(), {NodeId{1}, JobId{}});
  EXPECT_EQ(error_of([&] { return kill(-shadow.pid(), SIGHUP); }), 0);
  const siginfo_t info = shadow.signal();
  EXPECT_EQ(info.si_signo, SIGHUP);
  EXPECT_EQ(info.si_pid, 1) << "how a shadow knows that its group was meant";
}

TEST_F(SignalsTest, OnesOwnGroupReachesShadowsByKrgd) {
  Target shadow(nodes[0].pids.first() + 20'001);
  here.table.add_shadow(shadow.pid(), {NodeId{1}, JobId{}});
  EXPECT_EQ(run([&] {
              signal(SIGUSR1, SIG_IGN);
              if (setpgid(0, shadow.pid()) != 0) return errno;
              return kill(0, SIGUSR1) == 0 ? 0 : errno;
            }),
            0);
  EXPECT_EQ(shadow.signal().si_pid, 1);
}

TEST_F(SignalsTest, OnesOwnGroupIsTheKernels) {
  EXPECT_EQ(run([] {
              setpgid(0, 0);
              signal(SIGUSR1, SIG_IGN);
              return kill(0, SIGUSR1) == 0 && kill(-getpid(), SIGUSR1) == 0 ? 0 : errno;
            }),
            0);
}

TEST_F(SignalsTest, ASignalThatAShadowPassedOnKeepsItsSender) {
  Target body(pid_of_node_1());
  EXPECT_TRUE(there.signals.signal_body(body.pid(), {SIGRTMIN + 2, SI_QUEUE, 77, kAlice, 99}));
  const siginfo_t info = body.signal();
  EXPECT_EQ(info.si_pid, 77);
  EXPECT_EQ(info.si_uid, kAlice);
  EXPECT_EQ(info.si_value.sival_int, 99);
  Target killed(pid_of_node_1());
  EXPECT_TRUE(there.signals.signal_body(killed.pid(), {SIGTERM, SI_USER, 78, 0, 0}));
  EXPECT_EQ(killed.signal().si_pid, 78);
  EXPECT_EQ(killed.signal().si_code, SI_USER);
}

TEST_F(SignalsTest, LimitsAndSchedulingOfAnotherNodesProcess) {
  Target target(pid_of_node_1());
  EXPECT_EQ(run([&] {
              const struct rlimit wanted { 77, 88 };
              struct rlimit old {
                1, 1
              }, now{};
              if (prlimit(target.pid(), RLIMIT_NOFILE, &wanted, &old) != 0) return 1;
              if (prlimit(target.pid(), RLIMIT_NOFILE, nullptr, &now) != 0) return 2;
              return now.rlim_cur == 77 && now.rlim_max == 88 && old.rlim_cur != 77 ? 0 : 3;
            }),
            0);
  EXPECT_EQ(run([&] {
              if (setpriority(PRIO_PROCESS, target.pid(), 7) != 0) return 1;
              if (getpriority(PRIO_PROCESS, target.pid()) != 7) return 2;
              sched_param parameter{};
              if (sched_setscheduler(target.pid(), SCHED_BATCH, &parameter) != 0) return 3;
              if (sched_getscheduler(target.pid()) != SCHED_BATCH) return 4;
              return sched_getparam(target.pid(), &parameter) == 0 ? 0 : 5;
            }),
            0);
}

TEST_F(SignalsTest, ABadAddressIsTheCallersFault) {
  Target target(pid_of_node_1());
  EXPECT_EQ(error_of([&] { return syscall(SYS_prlimit64, target.pid(), RLIMIT_CORE, 8, 0); }),
            EFAULT);
  EXPECT_EQ(error_of([&] { return syscall(SYS_prlimit64, target.pid(), RLIMIT_CORE, 0, 8); }),
            EFAULT);
}

TEST_F(SignalsTest, WhatCannotWorkFromAfarSaysSo) {
  Target target(pid_of_node_1());
  const pid_t pid = target.pid();
  EXPECT_EQ(error_of([&] { return ptrace(PTRACE_SEIZE, pid, nullptr, nullptr); }), EREMOTE);
  EXPECT_EQ(error_of([&] { return syscall(SYS_pidfd_open, pid, 0); }), EREMOTE);
  EXPECT_EQ(error_of([&] { return syscall(SYS_kcmp, pid, getpid(), KCMP_VM, 0, 0); }), EREMOTE);
  EXPECT_EQ(error_of([&] { return syscall(SYS_pidfd_open, pid + 5000, 0); }), ESRCH);
}

// The target has a copy of this memory, at the same addresses.
char memory[(3u << 20) + 7];

TEST_F(SignalsTest, MemoryOfAnotherNodesProcessIsReadAndWritten) {
  for (size_t i = 0; i < sizeof memory; ++i) memory[i] = static_cast<char>(i % 251);
  Target target(pid_of_node_1());
  const pid_t pid = target.pid();
  EXPECT_EQ(run([pid] {
              std::vector<char> got(sizeof memory);
              // In other pieces here than there, across the pieces that travel.
              iovec here[] = {{got.data(), 1000}, {nullptr, 0}, {&got[1000], sizeof memory - 1000}};
              iovec there[] = {{memory, sizeof memory - 5}, {&memory[sizeof memory - 5], 5}};
              const auto all = static_cast<ssize_t>(sizeof memory);
              if (process_vm_readv(pid, here, 3, there, 2, 0) != all) return 1;
              if (!std::equal(got.begin(), got.end(), memory)) return 2;
              for (char& byte : got) byte = static_cast<char>(byte + 1);
              if (process_vm_writev(pid, here, 3, there, 2, 0) != all) return 3;
              std::vector<char> again(sizeof memory);
              here[0] = {again.data(), again.size()};
              if (process_vm_readv(pid, here, 1, there, 2, 0) != all) return 4;
              return again == got ? 0 : 5;
            }),
            0);
}

TEST_F(SignalsTest, MemoryThatIsNotThereOrNotTheCallersToSee) {
  Target target(pid_of_node_1());
  const pid_t pid = target.pid();
  char byte;
  iovec local{&byte, 1}, remote{memory, 1}, nowhere{reinterpret_cast<void*>(8), 1};
  const auto read = [&](const iovec* from, const iovec* to, unsigned long count, unsigned flags) {
    return error_of([=] { return process_vm_readv(pid, to, 1, from, count, flags); });
  };
  EXPECT_EQ(read(&remote, &local, 1, 0), 0);
  EXPECT_EQ(read(&nowhere, &local, 1, 0), EFAULT);
  EXPECT_EQ(read(&remote, &nowhere, 1, 0), EFAULT);
  EXPECT_EQ(read(&remote, &local, 2000, 0), EINVAL);
  EXPECT_EQ(read(&remote, &local, 1, 1), EINVAL);
  EXPECT_EQ(error_of([=] { return process_vm_readv(pid + 5000, &local, 1, &remote, 1, 0); }),
            ESRCH);
  EXPECT_EQ(error_of([=] {
              if (setresuid(kAlice, kAlice, kAlice) != 0) return -1L;
              return static_cast<long>(process_vm_readv(pid, &local, 1, &remote, 1, 0));
            }),
            EPERM);
}

TEST_F(SignalsTest, ADeadNodesProcessesAreGone) {
  Target target(pid_of_node_1());
  nodes.fabric().kill(NodeId{1}, LoopbackFabric::Death::kNoticed);
  EXPECT_EQ(error_of([&] { return kill(target.pid(), 0); }), ESRCH);
  EXPECT_EQ(error_of([&] { return kill(-target.pid(), SIGTERM); }), ESRCH);
}

}  // namespace
}  // namespace krg
