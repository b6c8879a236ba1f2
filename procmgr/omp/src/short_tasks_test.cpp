// When a thread takes a function's tasks to be short.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "short_tasks.h"

#include <gtest/gtest.h>

using krg::omp::ShortTasks;

namespace {

void first(void*) {}
void second(void*) {}

constexpr std::uint64_t kLong = 50'000'000, kNow = 1'000'000'000;

void run(ShortTasks& tasks, krg::omp::Function function, std::uint64_t ticks, int times = 1) {
  for (int i = 0; i < times; ++i) tasks.ran(function, kNow - ticks, kNow);
}

TEST(ShortTasks, AFunctionsTasksAreShortAfterSome) {
  ShortTasks tasks;
  EXPECT_FALSE(tasks.has(first));
  run(tasks, first, 100, 1);
  EXPECT_FALSE(tasks.has(first));
  run(tasks, first, 100, 1000);
  EXPECT_TRUE(tasks.has(first));
  EXPECT_FALSE(tasks.has(second));
}

TEST(ShortTasks, ALongOneCostsItsTime) {
  ShortTasks tasks;
  run(tasks, first, 100, 1000);
  run(tasks, first, kLong);
  EXPECT_FALSE(tasks.has(first));
  run(tasks, first, 100, 1000);
  EXPECT_FALSE(tasks.has(first));  // which is more than what these earn
  run(tasks, first, 100, 100'000);
  EXPECT_TRUE(tasks.has(first));
}

TEST(ShortTasks, WhatManyHaveEarnedIsLimited) {
  ShortTasks tasks;
  run(tasks, first, 100, 1'000'000);
  run(tasks, first, 2 * kLong);
  EXPECT_FALSE(tasks.has(first));
}

TEST(ShortTasks, ATaskBeginsWhereTheOneBeforeEnded) {
  ShortTasks tasks;
  run(tasks, first, 100, 1000);
  const std::uint64_t began = tasks.begin();
  EXPECT_EQ(tasks.begin(), began);
  EXPECT_EQ(began, kNow);
  tasks.ran(first, began, began + 100);
  EXPECT_EQ(tasks.begin(), began + 100);
}

TEST(ShortTasks, TimeBeforeTheFirstAfterAPauseIsNone) {
  ShortTasks tasks;
  run(tasks, first, 100, 1000);
  const std::uint64_t before = __rdtsc();
  tasks.pause();
  EXPECT_GE(tasks.begin(), before);
}

// A batch of `tasks` that took `ticks` each; false: a task was to be timed by itself.
bool run_batch(ShortTasks& tasks, krg::omp::Function function, unsigned count,
               std::uint64_t ticks) {
  if (!tasks.begin_batch(function, kNow)) return false;
  for (unsigned i = 1; i < count; ++i)
    if (!tasks.joins_batch(function)) return false;
  tasks.end_batch(kNow + count * ticks);
  return true;
}

TEST(ShortTasks, BatchesGrowWhileTheirTasksAreShort) {
  ShortTasks tasks;
  run(tasks, first, 100, 1000);
  for (unsigned count = 2; count <= 64; count *= 2) {
    ASSERT_TRUE(run_batch(tasks, first, count, 100)) << count;
    EXPECT_EQ(tasks.begin(), kNow + count * 100);
  }
  EXPECT_TRUE(run_batch(tasks, first, 64, 100));
  EXPECT_TRUE(tasks.has(first));
}

TEST(ShortTasks, ALongOneInABatchCostsItsTime) {
  ShortTasks tasks;
  run(tasks, first, 100, 1000);
  ASSERT_TRUE(tasks.begin_batch(first, kNow));
  tasks.end_batch(kNow + kLong);
  EXPECT_FALSE(tasks.has(first));
  EXPECT_FALSE(tasks.begin_batch(first, kNow));  // timed by themselves, until enough were short
  run(tasks, first, 100, 100'000);
  EXPECT_TRUE(tasks.has(first));
  EXPECT_TRUE(run_batch(tasks, first, 2, 100));
}

TEST(ShortTasks, AWaitEndsABatch) {
  ShortTasks tasks;
  run(tasks, first, 100, 1000);
  ASSERT_TRUE(tasks.begin_batch(first, __rdtsc() - kLong));
  tasks.pause();
  EXPECT_FALSE(tasks.has(first));
}

}  // namespace
