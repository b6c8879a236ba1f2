// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/child_reaper.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
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

}  // namespace
