// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/short_turns.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <thread>

namespace krg {
namespace {

using namespace std::chrono_literals;

// Two threads of one processor that look for each other's turns.
std::chrono::steady_clock::duration hand_over(unsigned processor, int times) {
  std::atomic<int> turn{0};
  const auto take_turns = [&](int first) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(processor, &only);
    sched_setaffinity(0, sizeof only, &only);
    for (int mine = first; mine < times; mine += 2) {
      while (turn.load(std::memory_order_relaxed) != mine) {
      }
      turn.store(mine + 1, std::memory_order_relaxed);
    }
  };
  const auto began = std::chrono::steady_clock::now();
  std::thread other(take_turns, 1);
  take_turns(0);
  other.join();
  return std::chrono::steady_clock::now() - began;
}

TEST(ShortTurns, ThreadsThatLookForEachOtherGetOnSooner) {
  std::thread([] {
    const auto processor = static_cast<unsigned>(sched_getcpu());
    const auto usual = hand_over(processor, 100);
    const ShortTurns turns({processor}, 100us);
    const auto quick = hand_over(processor, 100);
    EXPECT_LT(quick, usual / 2);
  }).join();
}

TEST(ShortTurns, AProcessorThatIsNotThereIsLeftOut) {
  const ShortTurns turns({1000u, 100'000u}, 100us);
}

}  // namespace
}  // namespace krg
