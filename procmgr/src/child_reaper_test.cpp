// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/child_reaper.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "process_threads.h"

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

// A parent whose child is traced here hears that the child goes on, though the tracer could be told
// in its place.
TEST_F(ChildReaperTest, LeavesToTheParentThatATraceeGoesOn) {
  int pids[2], go[2];
  ASSERT_EQ(pipe(pids), 0);
  ASSERT_EQ(pipe(go), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    const pid_t child = fork();
    if (child == 0) {
      for (;;) pause();
    }
    char byte;
    if (write(pids[1], &child, sizeof child) != sizeof child || read(go[0], &byte, 1) != 1)
      _exit(1);
    int status = 0;
    const bool is_told =
        waitpid(child, &status, WCONTINUED | WNOHANG) == child && WIFCONTINUED(status);
    kill(child, SIGKILL);
    _exit(is_told ? 7 : 2);
  }
  pid_t child = 0;
  ASSERT_EQ(read(pids[0], &child, sizeof child), ssize_t{sizeof child});
  ASSERT_EQ(ptrace(PTRACE_SEIZE, child, nullptr, 0), 0);
  bool is_stopped = false, goes_on = false;
  reaper_->watch_tracee(child, [&](const ChildEvent& event) {
    if (event.is_end()) return;
    const int signal = event.status & 0x7f;
    const bool is_by_ptrace = event.status >> 8 == PTRACE_EVENT_STOP;
    if (is_by_ptrace && signal == SIGSTOP) {
      is_stopped = true;
      ptrace(PTRACE_LISTEN, child, nullptr, 0);
    } else {
      goes_on |= signal == SIGCONT;
      ptrace(PTRACE_CONT, child, nullptr, is_by_ptrace ? 0 : signal);
    }
  });
  kill(child, SIGSTOP);
  run_until([&] { return is_stopped; });
  kill(child, SIGCONT);
  run_until([&] { return goes_on; });
  std::optional<ChildEvent> end;
  reaper_->watch(parent, [&](const ChildEvent& event) {
    if (event.is_end()) end = event;
  });
  ASSERT_EQ(write(go[1], "x", 1), 1);
  run_until([&] { return end.has_value(); });
  EXPECT_EQ(end->status, 7);
  for (int fd : {pids[0], pids[1], go[0], go[1]}) close(fd);
}

// Of many tracees that stand only those that move are looked at each time; nothing is passed over.
TEST_F(ChildReaperTest, TellsOfFewThatMoveWhereManyStand) {
  constexpr size_t kMany = 100;
  std::vector<pid_t> children;
  size_t standing = 0, ended = 0;
  const auto watch = [&](pid_t child) {
    reaper_->watch_new_tracee(child, [&, child](const ChildEvent& event) {
      if (event.is_end()) {
        ++ended;
        return;
      }
      ++standing;
      reaper_->tracee_stands(child);
    });
  };
  const auto begin = [&] {
    const pid_t child = fork();
    if (child == 0)
      for (;;) pause();
    EXPECT_EQ(ptrace(PTRACE_SEIZE, child, nullptr, PTRACE_O_EXITKILL), 0);
    EXPECT_EQ(ptrace(PTRACE_INTERRUPT, child, nullptr, nullptr), 0);
    children.push_back(child);
    return child;
  };
  for (size_t i = 0; i < kMany; ++i) watch(begin());
  run_until([&] { return standing == kMany; });
  for (size_t i = 0; i < kMany; i += 10) {
    reaper_->tracee_goes_on(children[i]);
    ASSERT_EQ(ptrace(PTRACE_CONT, children[i], nullptr, 0), 0);
    ASSERT_EQ(ptrace(PTRACE_INTERRUPT, children[i], nullptr, nullptr), 0);
    run_until([&] { return standing == kMany + 1 + i / 10; });
  }
  const pid_t late = begin();  // stops before it is watched
  loop_.run_once(50ms);
  const size_t before = standing;
  watch(late);
  run_until([&] { return standing == before + 1; });
  kill(children[1], SIGKILL);  // stands
  run_until([&] { return ended == 1; });
  for (pid_t child : children) kill(child, SIGKILL);
  run_until([&] { return ended == children.size(); });
}

// Of many tracees that move at a time the one that a signal names is looked at, and all of them
// every now and then: none is passed over, nor is its end.
TEST_F(ChildReaperTest, TellsOfAllInACrowdThatMoves) {
  constexpr size_t kThreads = 700;
  int made[2];
  ASSERT_EQ(pipe(made), 0);
  const pid_t crowd = fork();
  if (crowd == 0) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    const auto wait = [](void*) -> void* {
      for (;;) pause();
    };
    pthread_t thread;
    for (size_t i = 1; i < kThreads; ++i)
      if (pthread_create(&thread, &small, wait, nullptr) != 0) _exit(1);
    if (write(made[1], "x", 1) != 1) _exit(1);
    wait(nullptr);
  }
  char byte;
  ASSERT_EQ(read(made[0], &byte, 1), 1);
  const std::vector<pid_t> tids = threads_of(crowd);
  ASSERT_EQ(tids.size(), kThreads);
  size_t stops = 0, ends = 0;
  for (const pid_t tid : tids) {
    ASSERT_EQ(ptrace(PTRACE_SEIZE, tid, nullptr, PTRACE_O_EXITKILL), 0);
    reaper_->watch_tracee(tid, [&, tid](const ChildEvent& event) {
      if (event.is_end()) {
        ++ends;
        return;
      }
      ++stops;
      reaper_->tracee_stands(tid);
    });
  }
  for (size_t round = 1; round <= 3; ++round) {
    for (const pid_t tid : tids) ASSERT_EQ(ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr), 0);
    run_until([&] { return stops == round * kThreads; });
    for (const pid_t tid : tids) {
      reaper_->tracee_goes_on(tid);
      ASSERT_EQ(ptrace(PTRACE_CONT, tid, nullptr, 0), 0);
    }
  }
  kill(crowd, SIGKILL);
  run_until([&] { return ends == kThreads; });
  for (int fd : made) close(fd);
}

}  // namespace
