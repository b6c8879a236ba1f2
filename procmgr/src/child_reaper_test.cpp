// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/child_reaper.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

using namespace krg;
using namespace std::chrono_literals;

namespace {

class ChildReaperTest : public ::testing::Test {
 protected:
  void run_until(std::function<bool()> done) {
    for (int turn = 0; turn < 200 && !done(); ++turn) loop_.run_once(20ms);
    EXPECT_TRUE(done());
  }
  EventLoop loop_ = std::move(*EventLoop::create());
  std::unique_ptr<ChildReaper> reaper_ = std::move(*ChildReaper::create(loop_));
};

TEST_F(ChildReaperTest, ReportsStopContinueAndEnd) {
  std::vector<ChildEvent> events;
  pid_t child = fork();
  if (child == 0) {
    raise(SIGSTOP);
    _exit(7);
  }
  reaper_->watch(child, [&](const ChildEvent& event) {
    events.push_back(event);
    if (event.code == CLD_STOPPED) kill(event.pid, SIGCONT);
  });
  run_until([&] { return !events.empty() && events.back().is_end(); });
  EXPECT_EQ(events.front().code, CLD_STOPPED);
  EXPECT_EQ(events.front().status, SIGSTOP);
  EXPECT_EQ(events.back().code, CLD_EXITED);
  EXPECT_EQ(events.back().status, 7);
  EXPECT_GT(events.back().usage.ru_maxrss, 0);
}

TEST_F(ChildReaperTest, ReapsOrphansSilently) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  int ends = 0;
  pid_t child = fork();
  if (child == 0) {
    if (fork() == 0) {
      usleep(20'000);
      _exit(3);
    }
    _exit(0);
  }
  reaper_->watch(child, [&](const ChildEvent& event) { ends += event.is_end(); });
  run_until([&] { return ends == 1 && waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD; });
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

// The child of a forker that was killed before the fork was told: nobody waits for its first stop.
TEST_F(ChildReaperTest, LetsGoOfTraceesThatNobodyClaims) {
  int go[2], gone[2];
  ASSERT_EQ(pipe(go), 0);
  ASSERT_EQ(pipe(gone), 0);
  const pid_t forker = fork();
  if (forker == 0) {
    char byte;
    if (read(go[0], &byte, 1) != 1) _exit(1);
    if (fork() == 0) _exit(write(gone[1], "x", 1) == 1 ? 0 : 1);
    pause();
  }
  ASSERT_EQ(ptrace(PTRACE_SEIZE, forker, nullptr, PTRACE_O_TRACEFORK), 0);
  bool has_forked = false;
  reaper_->watch_tracee(forker, [&](const ChildEvent& event) {
    if (event.is_end()) return;
    has_forked = true;
    kill(forker, SIGKILL);
  });
  ASSERT_EQ(write(go[1], "x", 1), 1);
  pollfd ready{gone[0], POLLIN, 0};
  run_until([&] { return poll(&ready, 1, 0) == 1; });
  EXPECT_TRUE(has_forked);
  for (int fd : {go[0], go[1], gone[0], gone[1]}) close(fd);
}

}  // namespace
