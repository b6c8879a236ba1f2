// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/remote_usage.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/times.h>

#include <atomic>

#include "testing/filtered_child.h"

namespace krg {
namespace {

using testing::FilteredChild;

constexpr long kBodySeconds = 5000;  // far more than anything here uses

// What test and programs tell each other.
struct Board {
  std::atomic<pid_t> remote_child{0};  // the process that stands for a shadow
  std::atomic<bool> may_end{false};    // it may end
  std::atomic<int> handled{0};
  long waited_seconds = -1, children_seconds = -1, children_ticks = -1;
};

class RemoteUsageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    void* shared =
        mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(shared, MAP_FAILED);
    board = new (shared) Board;
  }
  void TearDown() override { munmap(board, sizeof(Board)); }

  // Runs `program` under the filter; its remote child's body ends `after` it has been seen.
  int run(std::function<int()> program, std::chrono::milliseconds after) {
    FilteredChild child(broker, std::move(program));
    int exit_code = -1;
    reaper->watch(child.pid(), [&](const ChildEvent& event) {
      if (event.is_end()) exit_code = event.code == CLD_EXITED ? event.status : 128 + event.status;
    });
    EventLoop::Timer ending;
    for (int turns = 0; turns < 1000 && exit_code < 0; ++turns) {
      if (!ending && board->remote_child != 0) ending = loop.after(after, [&] { end_body(); });
      loop.run_once(std::chrono::milliseconds(5));
    }
    return exit_code;
  }
  void end_body() {
    struct rusage used {};
    used.ru_utime.tv_sec = kBodySeconds;
    usage.body_ended(board->remote_child, used);
    board->may_end = true;
  }
  // In the program: a child that ends when its body has.
  pid_t start_remote_child() {
    pid_t pid = fork();
    if (pid == 0) {
      board->remote_child = getpid();
      while (!board->may_end) usleep(1000);
      syscall(SYS_exit_group, 7);
    }
    return pid;
  }
  void wait_for_zombie(pid_t pid) {
    siginfo_t info;
    syscall(SYS_waitid, P_PID, pid, &info, WEXITED | WNOWAIT, nullptr);
  }
  int wait_with_usage(pid_t pid) {
    struct rusage used {};
    int status = 0;
    if (syscall(SYS_wait4, pid, &status, 0, &used) != pid) return 1;
    board->waited_seconds = used.ru_utime.tv_sec;
    return WIFEXITED(status) && WEXITSTATUS(status) == 7 ? 0 : 2;
  }
  void ask_for_children() {
    struct rusage used {};
    getrusage(RUSAGE_CHILDREN, &used);
    board->children_seconds = used.ru_utime.tv_sec;
    struct tms ticks {};
    times(&ticks);
    board->children_ticks = ticks.tms_cutime;
  }

  EventLoop loop = std::move(*EventLoop::create());
  SyscallBroker broker{loop};
  std::unique_ptr<ChildReaper> reaper = std::move(*ChildReaper::create(loop));
  RemoteUsage usage{broker, *reaper};
  Board* board = nullptr;
};

constexpr std::chrono::milliseconds kAtOnce{0}, kLater{50};

TEST_F(RemoteUsageTest, AWaitThatBlocksReportsTheBodysUsage) {
  EXPECT_EQ(run([&] { return wait_with_usage(start_remote_child()); }, kLater), 0);
  EXPECT_EQ(board->waited_seconds, kBodySeconds);
}

TEST_F(RemoteUsageTest, AWaitForOneThatHasEndedReportsTheBodysUsage) {
  EXPECT_EQ(run(
                [&] {
                  pid_t child = start_remote_child();
                  wait_for_zombie(child);
                  return wait_with_usage(child);
                },
                kAtOnce),
            0);
  EXPECT_EQ(board->waited_seconds, kBodySeconds);
}

TEST_F(RemoteUsageTest, WaitidReportsTheBodysUsage) {
  EXPECT_EQ(run(
                [&] {
                  struct rusage used {};
                  siginfo_t info{};
                  pid_t child = start_remote_child();
                  if (syscall(SYS_waitid, P_PID, child, &info, WEXITED, &used) != 0) return 1;
                  board->waited_seconds = used.ru_utime.tv_sec;
                  return info.si_pid == child && info.si_status == 7 ? 0 : 2;
                },
                kLater),
            0);
  EXPECT_EQ(board->waited_seconds, kBodySeconds);
}

TEST_F(RemoteUsageTest, ChildrensUsageCountsAfterTheWaitOnly) {
  EXPECT_EQ(run(
                [&] {
                  pid_t child = start_remote_child();
                  wait_for_zombie(child);
                  ask_for_children();
                  if (board->children_seconds >= kBodySeconds) return 1;
                  if (waitpid(child, nullptr, 0) != child) return 2;
                  ask_for_children();
                  return 0;
                },
                kAtOnce),
            0);
  EXPECT_EQ(board->children_seconds, kBodySeconds);
  EXPECT_EQ(board->children_ticks, kBodySeconds * sysconf(_SC_CLK_TCK));
}

TEST_F(RemoteUsageTest, AGrandparentsBlockedWaitReportsIt) {
  EXPECT_EQ(run(
                [&] {
                  pid_t middle = fork();
                  if (middle == 0) {
                    pid_t child = start_remote_child();
                    _exit(waitpid(child, nullptr, 0) == child ? 7 : 1);
                  }
                  int failed = wait_with_usage(middle);
                  ask_for_children();
                  return failed;
                },
                kLater),
            0);
  EXPECT_EQ(board->waited_seconds, kBodySeconds);
  EXPECT_EQ(board->children_seconds, kBodySeconds);
}

// A handler runs at its time although the wait is attended, and the wait goes on.
TEST_F(RemoteUsageTest, AnAttendedWaitIsInterruptedBySignals) {
  static Board* shared;
  shared = board;
  EXPECT_EQ(run(
                [&] {
                  struct sigaction action {};
                  action.sa_handler = [](int) { ++shared->handled; };
                  action.sa_flags = SA_RESTART;
                  sigaction(SIGALRM, &action, nullptr);
                  pid_t first = start_remote_child();
                  wait_for_zombie(first);  // from now on waits are attended
                  pid_t second = fork();
                  if (second == 0) {
                    while (board->handled == 0) usleep(1000);
                    _exit(7);
                  }
                  const itimerval soon{{0, 0}, {0, 50'000}};
                  setitimer(ITIMER_REAL, &soon, nullptr);
                  int failed = wait_with_usage(second);
                  if (failed) return failed;
                  if (board->waited_seconds >= kBodySeconds) return 3;
                  return wait_with_usage(first);
                },
                kAtOnce),
            0);
  EXPECT_EQ(board->handled, 1);
  EXPECT_EQ(board->waited_seconds, kBodySeconds);
}

}  // namespace
}  // namespace krg
