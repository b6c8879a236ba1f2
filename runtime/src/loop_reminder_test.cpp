// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/loop_reminder.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <ctime>
#include <thread>

namespace krg {
namespace {

using namespace std::chrono_literals;

void stay_on(int processor) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(static_cast<size_t>(processor), &only);
  sched_setaffinity(0, sizeof only, &only);
}

void use_processor(std::chrono::nanoseconds time) {
  const clock_t end = clock() + time.count() * CLOCKS_PER_SEC / 1'000'000'000;
  while (clock() < end) continue;
}

TEST(LoopReminder, IsNeededByWhoWaitsForMoreThanATwentiethOfItsTime) {
  EXPECT_FALSE(LoopReminder::is_needed(0ns, 1ms));
  EXPECT_FALSE(LoopReminder::is_needed(50us, 1ms));
  EXPECT_TRUE(LoopReminder::is_needed(51us, 1ms));
}

TEST(LoopReminder, WakesUpWhileALoopHasToWaitForItsProcessorAndRestsWithIt) {
  if (access("/proc/self/schedstat", R_OK) != 0) GTEST_SKIP() << "lacks /proc/PID/schedstat";
  std::thread([] {
    const int processor = sched_getcpu();
    stay_on(processor);
    EventLoop loop = std::move(*EventLoop::create());
    const LoopReminder reminder(loop);
    EXPECT_FALSE(reminder.is_awake());
    std::atomic<bool> is_over{false};
    std::thread other([&] {
      stay_on(processor);
      while (!is_over) continue;
    });
    for (int turn = 0; turn < 20'000 && !reminder.is_awake(); ++turn) {
      use_processor(200us);
      loop.run_once(0ms);
    }
    EXPECT_TRUE(reminder.is_awake());
    is_over = true;
    other.join();
    for (int turn = 0; turn < 1000 && reminder.is_awake(); ++turn)
      std::this_thread::sleep_for(10ms);
    EXPECT_FALSE(reminder.is_awake());
  }).join();
}

}  // namespace
}  // namespace krg
