// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/listener_habits.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

namespace krg {
namespace {

class ListenerHabitsTest : public testing::Test {
 protected:
  void SetUp() override {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(listen(listener_, 5), 0);
  }
  void TearDown() override { close(listener_); }

  // Forks a child that closes the socket or does not, looks at it, and ends it.
  bool look_at_child(bool closes, bool is_last_look = true) {
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
      if (closes) close(listener_);
      close(ready[1]);
      for (;;) pause();
    }
    close(ready[1]);
    char byte;
    EXPECT_EQ(read(ready[0], &byte, 1), 0);  // it has come so far
    close(ready[0]);
    EXPECT_EQ(server_sockets(child).listening.empty(), closes);
    const bool decided = habits_.look_at(getpid(), child, is_last_look);
    kill(child, SIGKILL);
    EXPECT_EQ(waitpid(child, nullptr, 0), child);
    return decided;
  }

  using Expects = ListenerHabits::Expects;

  int listener_ = -1;
  ListenerHabits habits_;
};

TEST_F(ListenerHabitsTest, FindsSocketsThatListen) {
  const auto found = server_sockets(getpid()).listening;
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].number, listener_);
  EXPECT_TRUE(found[0].close_on_exec);
}

TEST_F(ListenerHabitsTest, KnowsConnectionsThatCameIn) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ASSERT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_FALSE(server_sockets(getpid()).has_connection) << "it made that one itself";
  const int accepted = accept(listener_, nullptr, nullptr);
  EXPECT_TRUE(server_sockets(getpid()).has_connection);
  close(accepted);
  close(client);
}

TEST_F(ListenerHabitsTest, TwoChildrenThatCloseThemAreAHabit) {
  EXPECT_TRUE(look_at_child(true));
  EXPECT_NE(habits_.expects(getpid()), Expects::kClosed);
  EXPECT_TRUE(look_at_child(true));
  EXPECT_EQ(habits_.expects(getpid()), Expects::kClosed);
  EXPECT_NE(habits_.expects(getppid()), Expects::kClosed);
}

TEST_F(ListenerHabitsTest, OneThatKeepsThemEndsItForGood) {
  EXPECT_TRUE(look_at_child(true));
  EXPECT_TRUE(look_at_child(true));
  EXPECT_FALSE(look_at_child(false, false));
  EXPECT_EQ(habits_.expects(getpid()), Expects::kClosed) << "it may be about to close it";
  EXPECT_TRUE(look_at_child(false));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(look_at_child(true));
  EXPECT_EQ(habits_.expects(getpid()), Expects::kKept);
}

TEST_F(ListenerHabitsTest, FindsWhatTellsOfEvents) {
  const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), poll = epoll_create1(0);
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  const auto found = server_sockets(getpid()).events;
  ASSERT_EQ(found.size(), 3u);
  for (const ListeningFd& fd : found) EXPECT_EQ(fd.close_on_exec, fd.number == timer);
  close(timer);
  close(poll);
  close(master);
  EXPECT_TRUE(server_sockets(getpid()).events.empty());
}

TEST_F(ListenerHabitsTest, ChildrenMayHaveEventsOfTheirOwn) {
  const int poll = epoll_create1(0);
  ListenerHabits habits(ListenerHabits::Of::kEvents);
  for (const bool keeps : {false, false, true}) {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
      if (!keeps) close(poll);
      epoll_create1(0);
      close(ready[1]);
      for (;;) pause();
    }
    close(ready[1]);
    char byte;
    EXPECT_EQ(read(ready[0], &byte, 1), 0);
    close(ready[0]);
    EXPECT_NE(habits.expects(getpid()), Expects::kKept);
    EXPECT_EQ(habits.look_at(getpid(), child, false), !keeps);
    if (keeps) {
      EXPECT_EQ(habits.expects(getpid()), Expects::kClosed);
      EXPECT_TRUE(habits.look_at(getpid(), child, true));
    }
    kill(child, SIGKILL);
    EXPECT_EQ(waitpid(child, nullptr, 0), child);
  }
  EXPECT_EQ(habits.expects(getpid()), Expects::kKept);
  close(poll);
}

TEST_F(ListenerHabitsTest, NothingIsLearntOfTheDead) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  siginfo_t ended{};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT), 0);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(habits_.look_at(getpid(), child, true));
  EXPECT_NE(habits_.expects(getpid()), Expects::kClosed);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

}  // namespace
}  // namespace krg
