// SPDX-License-Identifier: GPL-2.0-or-later
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <thread>

#include "image/testing/frozen_process_fixture.h"
#include "testing/filtered_child.h"

namespace krg {
namespace {

using testing::FilteredChild;
using testing::FrozenProcessTest;

// A child under a filter that stops its forks.
class ForkTest : public FrozenProcessTest {
 protected:
  using Outcome = Result<std::shared_ptr<FrozenProcess>>;

  // Runs `program`, whose forks are made by fork_and_freeze_child(); its exit status.
  int run(std::function<int()> program, const std::function<void(Outcome)>& done) {
    for (int number : {SYS_fork, SYS_clone, SYS_clone3})
      broker.set_handler(number, [this, done](SyscallBroker::Call call) {
        auto taken = fork_and_freeze_child(*reaper, call, done);
        EXPECT_TRUE(taken) << taken.error().message();
      });
    FilteredChild child(broker, std::move(program), testing::range_of(getpid()), true);
    caller = child.pid();
    watch(caller);
    return end_of(caller);
  }

  SyscallBroker broker{loop};
  pid_t caller = 0;
};

TEST_F(ForkTest, TheChildStandsAtItsFirstInstruction) {
  std::shared_ptr<FrozenProcess> child;
  pid_t made = 0;
  const int status = run(
      [&] {
        const int before = 5;
        sigset_t mask, now;
        sigemptyset(&mask);
        sigaddset(&mask, SIGUSR2);
        sigprocmask(SIG_BLOCK, &mask, nullptr);
        const pid_t forked = fork();
        if (forked == 0) {
          sigprocmask(SIG_SETMASK, nullptr, &now);
          _exit(sigismember(&now, SIGUSR2) && !sigismember(&now, SIGUSR1) ? before : 99);
        }
        sigprocmask(SIG_SETMASK, nullptr, &now);
        if (sigismember(&now, SIGUSR1) || !sigismember(&now, SIGUSR2)) return 98;
        shared->value = static_cast<uint64_t>(forked);
        int status = 0;
        if (waitpid(forked, &status, 0) != forked) return 97;
        return WEXITSTATUS(status);
      },
      [&](Outcome forked) {
        ASSERT_TRUE(forked) << forked.error().message();
        child = std::move(*forked);
        EXPECT_EQ(child->call(SYS_getpid, {}), child->pid());
        EXPECT_EQ(child->main().registers().rax, 0u);
        // The caller waits until this has been looked at.
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        EXPECT_EQ(shared->value, 0u);
        made = child->pid();
        child.reset();
      });
  EXPECT_EQ(status, 5);
  EXPECT_EQ(shared->value, static_cast<uint64_t>(made));
}

TEST_F(ForkTest, TheCallerIsToldTheKernelsError) {
  int error = 0;
  const int status = run(
      [] {
        const rlimit none{0, 0};
        setrlimit(RLIMIT_NPROC, &none);
        if (setresuid(65534, 65534, 65534) != 0) return 99;
        return fork() < 0 && errno == EAGAIN ? 0 : 1;
      },
      [&](const Outcome& forked) { error = forked ? 0 : forked.error().errno_or(-1); });
  if (status == 99) GTEST_SKIP() << "lacks root: another user's limit";
  EXPECT_EQ(status, 0);
  EXPECT_EQ(error, EAGAIN);
}

TEST_F(ForkTest, AnyCloneWithoutThreads) {
  int forks = 0;
  const int status = run(
      [] {
        volatile int value = 0;
        const auto made =
            static_cast<pid_t>(syscall(SYS_clone, CLONE_PARENT_SETTID | SIGCHLD, 0, 0));
        if (made == 0) _exit(value);
        int status = 1;
        return waitpid(made, &status, 0) == made ? status : 1;
      },
      [&](const Outcome& forked) { forks += forked.has_value(); });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(forks, 1);
}

}  // namespace
}  // namespace krg
