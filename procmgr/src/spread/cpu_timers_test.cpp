// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/cpu_timers.h"

#include <gtest/gtest.h>

#include <csignal>

namespace krg {
namespace {

constexpr int64_t kMillisecond = 1'000'000;

CpuTime used(int64_t user_ms, int64_t system_ms = 0) {
  return {user_ms * kMillisecond, system_ms * kMillisecond};
}
itimerval timer(suseconds_t first_ms, suseconds_t interval_ms = 0) {
  return {{0, interval_ms * 1000}, {0, first_ms * 1000}};
}

TEST(CpuTimers, OneThatIsSetOnceExpiresOnce) {
  CpuTimers timers;
  EXPECT_FALSE(timers.is_any_set());
  timers.set(ITIMER_PROF, timer(100), used(50));
  EXPECT_TRUE(timers.is_any_set());
  EXPECT_EQ(timers.next(used(50)), 100 * kMillisecond);
  EXPECT_EQ(timers.take_expired(used(100, 49)), std::vector<int>{});
  EXPECT_EQ(timers.take_expired(used(100, 50)), std::vector<int>{SIGPROF});
  EXPECT_FALSE(timers.is_any_set());
  EXPECT_EQ(timers.take_expired(used(10'000)), std::vector<int>{});
  EXPECT_EQ(timers.next(used(10'000)), std::nullopt);
}

TEST(CpuTimers, TheVirtualOneCountsTheProgramsOwnTimeOnly) {
  CpuTimers timers;
  timers.set(ITIMER_VIRTUAL, timer(100), used(0));
  EXPECT_EQ(timers.take_expired(used(99, 1000)), std::vector<int>{});
  EXPECT_EQ(timers.take_expired(used(100, 1000)), std::vector<int>{SIGVTALRM});
}

TEST(CpuTimers, AnIntervalIsToldOfAsOftenAsItHasPassed) {
  CpuTimers timers;
  timers.set(ITIMER_PROF, timer(100, 10), used(0));
  int told = 0;
  while (!timers.take_expired(used(135)).empty()) ++told;
  EXPECT_EQ(told, 4);  // after 100, 110, 120 and 130 ms
  EXPECT_EQ(timers.next(used(135)), 5 * kMillisecond);
}

TEST(CpuTimers, BothExpireAtOnce) {
  CpuTimers timers;
  timers.set(ITIMER_PROF, timer(20), used(0));
  timers.set(ITIMER_VIRTUAL, timer(10), used(0));
  EXPECT_EQ(timers.next(used(0)), 10 * kMillisecond);
  EXPECT_EQ(timers.take_expired(used(30)), (std::vector<int>{SIGVTALRM, SIGPROF}));
}

TEST(CpuTimers, SettingTellsWhatWasLeft) {
  CpuTimers timers;
  const itimerval none = timers.set(ITIMER_PROF, timer(100, 30), used(0));
  EXPECT_EQ(none.it_value.tv_usec + none.it_interval.tv_usec, 0);
  const itimerval before = timers.set(ITIMER_PROF, timer(0), used(40));
  EXPECT_EQ(before.it_value.tv_usec, 60'000);
  EXPECT_EQ(before.it_interval.tv_usec, 30'000);
  EXPECT_FALSE(timers.is_any_set());
}

TEST(CpuTimers, OneThatIsDueIsNotOver) {
  CpuTimers timers;
  timers.set(ITIMER_PROF, timer(100), used(0));
  EXPECT_EQ(timers.get(ITIMER_PROF, used(500)).it_value.tv_usec, 1);
}

TEST(CpuTimers, TimesAreHeldToWhatTheKernelTakes) {
  EXPECT_TRUE(CpuTimers::is_valid(timer(0)));
  EXPECT_FALSE(CpuTimers::is_valid({{0, 0}, {-1, 0}}));
  EXPECT_FALSE(CpuTimers::is_valid({{0, 1'000'000}, {1, 0}}));
  EXPECT_FALSE(CpuTimers::is_valid({{0, 0}, {1, -1}}));
}

}  // namespace
}  // namespace krg
