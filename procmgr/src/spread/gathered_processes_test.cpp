// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/gathered_processes.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace krg {
namespace {

TEST(GatheredProcessesTest, EachIsToldOnceToItsJob) {
  GatheredProcesses gathered;
  EXPECT_FALSE(gathered.reporter("", getpid()));
  auto mine = gathered.reporter("7", getpid());
  auto others = gathered.reporter("8", getpid());
  EXPECT_TRUE(gathered.take("7").empty()) << "it is on several nodes";
  mine();
  mine();
  others();
  const auto told = gathered.take("7");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].at("pid"), getpid());
  EXPECT_EQ(told[0].at("command"), "gathered_proces") << "as /proc has it";
  EXPECT_GE(told[0].at("after_s"), 0.0);
  EXPECT_TRUE(gathered.take("7").empty());
  EXPECT_EQ(gathered.take("8").size(), 1u);
}

TEST(GatheredProcessesTest, WhoIsNotAskedForIsForgotten) {
  GatheredProcesses gathered;
  for (size_t i = 0; i < GatheredProcesses::kMost + 10; ++i) gathered.reporter("1", getpid())();
  EXPECT_EQ(gathered.take("1").size(), GatheredProcesses::kMost);
}

}  // namespace
}  // namespace krg
