// Regions of several sizes in one pool.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "team.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <utility>

using namespace krg::omp;

extern "C" {
bool GOMP_single_start();
void GOMP_barrier();
}

namespace {

struct Seen {
  std::atomic<int> numbers{0}, singles{0}, members{0};
};

void run_member(void* data) {
  Seen& seen = *static_cast<Seen*>(data);
  ++seen.members;
  seen.numbers |= 1 << this_thread().at.number;
  for (int i = 0; i < 4; ++i) {
    if (GOMP_single_start()) ++seen.singles;
    GOMP_barrier();
  }
}

TEST(Team, RegionsOfSeveralSizes) {
  for (int round = 0; round < 20; ++round) {
    Seen seen;
    const unsigned size = 1 + unsigned(round) % 5;
    parallel(run_member, &seen, size, 0, [](Team&) {});
    EXPECT_EQ(seen.members, int(size));
    EXPECT_EQ(seen.numbers, (1 << size) - 1);
    EXPECT_EQ(seen.singles, 4);
  }
}

TEST(Team, SizesFollowTheControlVariables) {
  Icvs& icvs = this_thread().at.task->icvs;
  const Icvs kept = icvs;
  icvs.threads = 5;
  EXPECT_EQ(team_size(0, 0), 5u);
  EXPECT_EQ(team_size(7, 0), 7u);
  EXPECT_EQ(team_size(1, 0), 1u);
  icvs.max_active_levels = 0;
  EXPECT_EQ(team_size(7, 0), 1u);
  icvs = kept;
}

// Where two tasks are queued right after each other, the second one is not taken for that of a
// thread which is waking for the first.
TEST(Waiting, WhoIsWakingIsNotWokenAgain) {
  for (bool slept = false; !slept;) {
    EventCount count;
    std::atomic<bool> woken{false}, may_go_on{false};
    const auto ready = [&] {
      if (!woken) return false;
      while (!may_go_on) std::this_thread::yield();
      return true;
    };
    std::jthread sleeper([&] { count.wait(ready); });
    std::this_thread::sleep_for(std::chrono::milliseconds(10));  // once more if it is not enough
    woken = true;
    slept = count.wake_one();
    EXPECT_FALSE(slept && count.wake_one());
    may_go_on = true;
  }
}

// More threads than processors: they yield, then sleep; who sleeps is counted until it is woken.
TEST(Waiting, WhoSleepsIsCounted) {
  const unsigned threads = spinning.threads.exchange(spinning.processors + 1);
  EventCount count;
  std::atomic<bool> ready{false};
  std::atomic<unsigned> asleep{0};
  std::jthread sleeper([&] { count.wait([&] { return ready.load(); }, &asleep); });
  while (asleep == 0) std::this_thread::yield();
  ready = true;
  count.wake_all();
  sleeper.join();
  EXPECT_EQ(asleep, 0U);
  spinning.threads = threads;
}

TEST(Waiting, WhoYieldsSeesWhatAnotherThreadDoes) {
  const std::uint64_t looks_ns = std::exchange(spinning.default_ns, 1'000'000);
  std::atomic<bool> ready{false};
  EXPECT_TRUE(look_yielding([&] { return true; }));
  for (bool seen = false; !seen; ready = false) {  // once more if others computed meanwhile
    std::jthread other([&] { ready = true; });
    seen = look_yielding([&] { return ready.load(); });
  }
  EXPECT_FALSE(look_yielding([&] { return false; }));
  spinning.default_ns = 0;
  EXPECT_FALSE(look_yielding([&] { return false; }));
  spinning.default_ns = looks_ns;
}

}  // namespace
