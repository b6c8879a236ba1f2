// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/loop_precedence.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ctime>
#include <optional>
#include <thread>

namespace krg {
namespace {

using namespace std::chrono_literals;

int niceness() {
  return getpriority(PRIO_PROCESS, 0);
}

int niceness_of_child() {
  const pid_t child = fork();
  if (child == 0) _exit(niceness() + 20);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WEXITSTATUS(status) - 20;
}

bool may_go_first() {
  bool may = false;
  std::thread([&] { may = setpriority(PRIO_PROCESS, 0, -20) == 0; }).join();
  return may;
}

void use_processor(std::chrono::nanoseconds time) {
  const clock_t end = clock() + time.count() * CLOCKS_PER_SEC / 1'000'000'000;
  while (clock() < end) continue;
}

TEST(LoopPrecedence, BelongsToWhoUsesLessThanAnEighthOfAProcessor) {
  EXPECT_TRUE(LoopPrecedence::deserved(0ns, 1ns));
  EXPECT_TRUE(LoopPrecedence::deserved(124us, 1ms));
  EXPECT_FALSE(LoopPrecedence::deserved(125us, 1ms));
  EXPECT_FALSE(LoopPrecedence::deserved(1ms, 1ms));
}

TEST(LoopPrecedence, IsLeftWhileTheLoopIsBusyAndIsNotItsChildrens) {
  if (niceness() != 0 || !may_go_first()) GTEST_SKIP() << "lacks root";
  std::thread([] {
    EventLoop loop = std::move(*EventLoop::create());
    std::optional<LoopPrecedence> precedence(std::in_place, loop);
    EXPECT_EQ(niceness(), -20);
    EXPECT_EQ(niceness_of_child(), 0);
    // However busy the machine is, sooner or later the thread has a processor for some time...
    for (int turn = 0; turn < 2000 && niceness() < 0; ++turn) {
      use_processor(5ms);
      loop.run_once(0ms);
    }
    EXPECT_EQ(niceness(), 0);
    // ... and one that waits uses none.
    for (int turn = 0; turn < 2000 && niceness() == 0; ++turn) loop.run_once(5ms);
    EXPECT_EQ(niceness(), -20);
    precedence.reset();
    EXPECT_EQ(niceness(), 0);
  }).join();
}

TEST(LoopPrecedence, LeavesAThreadWithANicenessOfItsOwnAlone) {
  std::thread([] {
    ASSERT_EQ(setpriority(PRIO_PROCESS, 0, 7), 0);
    EventLoop loop = std::move(*EventLoop::create());
    const LoopPrecedence precedence(loop);
    EXPECT_EQ(niceness(), 7);
    EXPECT_EQ(niceness_of_child(), 7);
  }).join();
}

}  // namespace
}  // namespace krg
