// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/cpu_time.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <ctime>

namespace krg {
namespace {

constexpr const char* kStat = "17 (a) b) R 1 17 17 0 -1 4194304 5 0 0 0 30 10 0 0 20 0 1 0 99";

TEST(CpuTime, IsDividedAsTheTicksAre) {
  const auto times = parse_task_times(kStat, "404000000 77 12\n", 100);
  ASSERT_TRUE(times);
  EXPECT_EQ(times->state, 'R');
  EXPECT_EQ(times->used, (CpuTime{303'000'000, 101'000'000}));
}

TEST(CpuTime, TicksSayItWhereNothingElseDoes) {
  const auto times = parse_task_times(kStat, "", 100);
  ASSERT_TRUE(times);
  EXPECT_EQ(times->used, (CpuTime{300'000'000, 100'000'000}));
}

TEST(CpuTime, LessThanATickIsTheUsers) {
  const auto times =
      parse_task_times("1 (x) S 1 1 1 0 -1 0 5 0 0 0 0 0 0 0 20 0 1 0 99", "9000 1 1", 100);
  ASSERT_TRUE(times);
  EXPECT_EQ(times->used, (CpuTime{9000, 0}));
}

TEST(CpuTime, OtherTextsAreNone) {
  EXPECT_FALSE(parse_task_times("", "1 1 1", 100));
  EXPECT_FALSE(parse_task_times("1 (x) S 1 1", "1 1 1", 100));
}

TEST(CpuTime, OfThisThread) {
  timespec now{};
  do {
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  } while (now.tv_nsec < 1'000'000 && now.tv_sec == 0);
  const auto times = read_task_times(getpid(), gettid());
  ASSERT_TRUE(times);
  EXPECT_GE(times->used.total_ns(), 0);
  EXPECT_FALSE(read_task_times(getpid(), 1 << 22));
}

}  // namespace
}  // namespace krg
