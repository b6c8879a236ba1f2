// SPDX-License-Identifier: GPL-2.0-or-later
#include "stand_in.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <optional>

namespace krg {
namespace {

// The highest pid that nobody has: far from where the kernel goes on.
pid_t absent_pid() {
  int limit = 32768;
  if (FILE* file = fopen("/proc/sys/kernel/pid_max", "r")) {
    if (fscanf(file, "%d", &limit) != 1) limit = 32768;
    fclose(file);
  }
  pid_t pid = limit - 1;
  while (kill(pid, 0) == 0 || errno != ESRCH) --pid;
  return pid;
}
const pid_t kAbsentPid = absent_pid();
constexpr uid_t kSomeUser = 4242;
constexpr uint64_t kAllCapabilities = ~uint64_t{0};

// A child that waits for one signal and hands back its siginfo by a pipe.
class Target {
 public:
  Target() {
    EXPECT_EQ(pipe(pipe_), 0);
    sigset_t all;
    sigfillset(&all);
    sigset_t before;
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_ = fork();
    if (pid_ == 0) {
      siginfo_t info;
      sigwaitinfo(&all, &info);
      _exit(write(pipe_[1], &info, sizeof info) == sizeof info ? 0 : 1);
    }
    sigprocmask(SIG_SETMASK, &before, nullptr);
  }
  ~Target() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    close(pipe_[0]);
    close(pipe_[1]);
  }
  pid_t pid() const { return pid_; }
  siginfo_t signal() {
    siginfo_t info{};
    EXPECT_EQ(read(pipe_[0], &info, sizeof info), static_cast<ssize_t>(sizeof info));
    return info;
  }

 private:
  pid_t pid_ = 0;
  int pipe_[2];
};

class StandInTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "lacks root: choosing a pid and a uid takes privileges";
  }
  static uint64_t as_arg(pid_t pid) { return static_cast<uint64_t>(pid); }
};

TEST_F(StandInTest, TheReceiverSeesTheSender) {
  Target target;
  const Sender sender{kAbsentPid, {.effective_capabilities = kAllCapabilities}};
  auto result = call_as(sender, RawCall{SYS_kill, {as_arg(target.pid()), SIGUSR1}});
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(*result, 0);
  const siginfo_t info = target.signal();
  EXPECT_EQ(info.si_signo, SIGUSR1);
  EXPECT_EQ(info.si_code, SI_USER);
  EXPECT_EQ(info.si_pid, kAbsentPid);
  EXPECT_EQ(info.si_uid, 0u);
}

TEST_F(StandInTest, AQueuedSignalKeepsItsValue) {
  Target target;
  siginfo_t queued{};
  queued.si_code = SI_QUEUE;
  queued.si_pid = kAbsentPid;
  queued.si_value.sival_int = 4711;
  const Sender sender{kAbsentPid, {.effective_capabilities = kAllCapabilities}};
  auto result = call_as(sender, RawCall{SYS_rt_sigqueueinfo,
                                        {as_arg(target.pid()), static_cast<uint64_t>(SIGRTMIN),
                                         reinterpret_cast<uint64_t>(&queued)}});
  ASSERT_TRUE(result && *result == 0);
  const siginfo_t info = target.signal();
  EXPECT_EQ(info.si_code, SI_QUEUE);
  EXPECT_EQ(info.si_value.sival_int, 4711);
}

TEST_F(StandInTest, AnotherUserMayNotSignal) {
  Target target;
  const Sender stranger{kAbsentPid, {kSomeUser, kSomeUser, kSomeUser, 0, 0, 0, 0}};
  auto result = call_as(stranger, RawCall{SYS_kill, {as_arg(target.pid()), 0}});
  ASSERT_TRUE(result);
  EXPECT_EQ(*result, -EPERM);
}

TEST_F(StandInTest, ACapabilityOfTheSenderCounts) {
  Target target;
  constexpr uint64_t kCapKill = 1u << 5;  // capabilities(7): CAP_KILL
  const Sender sender{kAbsentPid, {kSomeUser, kSomeUser, kSomeUser, 0, 0, 0, kCapKill}};
  auto result = call_as(sender, RawCall{SYS_kill, {as_arg(target.pid()), 0}});
  ASSERT_TRUE(result);
  EXPECT_EQ(*result, 0);
}

TEST_F(StandInTest, LeavesTheCallerAsItWas) {
  const Sender stranger{kAbsentPid, {kSomeUser, kSomeUser, kSomeUser, 7, 7, 7, 0}};
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(call_as(stranger, RawCall{SYS_getuid, {}}));
  auto answers = call_as(stranger, std::vector<RawCall>{{SYS_getpid, {}}, {SYS_getuid, {}}});
  ASSERT_TRUE(answers);
  EXPECT_EQ((*answers)[0], kAbsentPid);
  EXPECT_EQ((*answers)[1], kSomeUser);
  EXPECT_EQ(getuid(), 0u);
  EXPECT_EQ(getgid(), 0u);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG | __WALL), -1) << "no stand-in is left";
}

TEST_F(StandInTest, APidThatIsTakenHereIsNotUsed) {
  Target bystander, target;
  const Sender sender{bystander.pid(), {.effective_capabilities = kAllCapabilities}};
  auto result = call_as(sender, RawCall{SYS_kill, {as_arg(target.pid()), SIGUSR2}});
  ASSERT_TRUE(result && *result == 0);
  EXPECT_NE(target.signal().si_pid, bystander.pid());
}

TEST(ProcessStatus, TellsAThreadGroupAndItsPlace) {
  auto status = read_process_status(getpid());
  ASSERT_TRUE(status);
  EXPECT_EQ(status->pid, getpid());
  EXPECT_EQ(status->parent, getppid());
  EXPECT_EQ(status->group, getpgrp());
  EXPECT_EQ(status->session, getsid(0));
  EXPECT_FALSE(read_process_status(kAbsentPid));
  auto who = read_credentials(getpid());
  ASSERT_TRUE(who);
  EXPECT_EQ(who->effective_uid, geteuid());
}

}  // namespace
}  // namespace krg
