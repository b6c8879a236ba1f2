// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/cpu_limit.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

using namespace std::chrono_literals;

TEST(CpuLimit, NoLimitIsNeverReached) {
  const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
  EXPECT_FALSE(is_cpu_limited(none));
  EXPECT_EQ(cpu_limit_action(none, 1'000'000h), CpuLimitAction::kNone);
}

TEST(CpuLimit, WarnsFromTheSoftLimitOnEachSecond) {
  rlimit limit{3, RLIM_INFINITY};
  EXPECT_TRUE(is_cpu_limited(limit));
  EXPECT_EQ(cpu_limit_action(limit, 2900ms), CpuLimitAction::kNone);
  EXPECT_EQ(cpu_limit_action(limit, 3s), CpuLimitAction::kWarn);
  limit = next_cpu_limit(limit);
  EXPECT_EQ(cpu_limit_action(limit, 3900ms), CpuLimitAction::kNone);
  EXPECT_EQ(cpu_limit_action(limit, 4s), CpuLimitAction::kWarn);
}

TEST(CpuLimit, KillsAtTheHardLimit) {
  const rlimit limit{3, 5};
  EXPECT_EQ(cpu_limit_action(limit, 4900ms), CpuLimitAction::kWarn);
  EXPECT_EQ(cpu_limit_action(limit, 5s), CpuLimitAction::kKill);
  EXPECT_EQ(next_cpu_limit({5, 5}).rlim_cur, 5U);
  EXPECT_TRUE(is_cpu_limited({RLIM_INFINITY, 5}));
}

}  // namespace
}  // namespace krg
