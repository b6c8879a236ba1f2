// When a thread takes a function's tasks to be short.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "short_tasks.h"

#include <gtest/gtest.h>

using krg::omp::ShortTasks;

namespace {

void first(void*) {}
void second(void*) {}

// So that the clock, which goes on, sees them as long as they are to be.
constexpr std::uint64_t kLong = 50'000'000;

void run_short(ShortTasks& tasks, krg::omp::Function function, int times) {
  for (int i = 0; i < times; ++i) tasks.ran(function, __rdtsc());
}

TEST(ShortTasks, AFunctionsTasksAreShortAfterSome) {
  ShortTasks tasks;
  EXPECT_FALSE(tasks.has(first));
  run_short(tasks, first, 1);
  EXPECT_FALSE(tasks.has(first));
  run_short(tasks, first, 1000);
  EXPECT_TRUE(tasks.has(first));
  EXPECT_FALSE(tasks.has(second));
}

TEST(ShortTasks, ALongOneCostsItsTime) {
  ShortTasks tasks;
  run_short(tasks, first, 1000);
  tasks.ran(first, __rdtsc() - kLong);
  EXPECT_FALSE(tasks.has(first));
  run_short(tasks, first, 1000);
  EXPECT_FALSE(tasks.has(first));  // which is more than what these earn
  run_short(tasks, first, 100'000);
  EXPECT_TRUE(tasks.has(first));
}

TEST(ShortTasks, WhatManyHaveEarnedIsLimited) {
  ShortTasks tasks;
  run_short(tasks, first, 1'000'000);
  tasks.ran(first, __rdtsc() - 2 * kLong);
  EXPECT_FALSE(tasks.has(first));
}

TEST(ShortTasks, ATaskBeginsWhereTheOneBeforeEnded) {
  ShortTasks tasks;
  run_short(tasks, first, 1000);
  const std::uint64_t began = tasks.begin();
  EXPECT_EQ(tasks.begin(), began);
  tasks.ran(first, began);
  EXPECT_GT(tasks.begin(), began);
}

TEST(ShortTasks, TimeBeforeTheFirstAfterAPauseIsNone) {
  ShortTasks tasks;
  run_short(tasks, first, 1000);
  const std::uint64_t before = __rdtsc();
  tasks.pause();
  EXPECT_GE(tasks.begin(), before);
}

}  // namespace
