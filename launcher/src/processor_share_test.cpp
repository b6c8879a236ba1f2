// SPDX-License-Identifier: GPL-2.0-or-later
#include "processor_share.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace krg {
namespace {

cpu_set_t processors() {
  cpu_set_t set;
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  return set;
}

// In a process of its own, whose binding ends with it.
bool holds_in_child(const std::function<bool()>& test) {
  const pid_t child = fork();
  if (child == 0) _exit(test() ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  return status == 0;
}

TEST(ProcessorShare, NodesHaveDifferentProcessorsOfThoseAllowed) {
  const cpu_set_t all = processors();
  const auto count = static_cast<unsigned>(CPU_COUNT(&all));
  if (count < 2) GTEST_SKIP() << "lacks a second processor";
  EXPECT_TRUE(holds_in_child([&] {
    // The first one is not ours: shares are counted from the second.
    cpu_set_t rest = all;
    unsigned first = 0;
    while (!CPU_ISSET(first, &all)) ++first;
    CPU_CLR(first, &rest);
    if (sched_setaffinity(0, sizeof rest, &rest) != 0 || !take_processor_share(0, 1)) return false;
    const cpu_set_t share = processors();
    return CPU_COUNT(&share) == 1 && !CPU_ISSET(first, &share);
  }));
  cpu_set_t shares[2];
  for (unsigned rank : {0u, 1u}) {
    EXPECT_TRUE(holds_in_child([&] { return take_processor_share(rank, count / 2).has_value(); }));
    ASSERT_TRUE(take_processor_share(rank, count / 2));
    shares[rank] = processors();
    sched_setaffinity(0, sizeof all, &all);
  }
  cpu_set_t both;
  CPU_AND(&both, &shares[0], &shares[1]);
  EXPECT_EQ(CPU_COUNT(&both), 0);
  EXPECT_EQ(static_cast<unsigned>(CPU_COUNT(&shares[1])), count / 2);
}

TEST(ProcessorShare, TooManyAreRefused) {
  const cpu_set_t all = processors();
  const auto count = static_cast<unsigned>(CPU_COUNT(&all));
  EXPECT_TRUE(check_processor_shares(count, 1));
  EXPECT_TRUE(check_processor_shares(1000, 0));
  EXPECT_FALSE(check_processor_shares(count + 1, 1));
  EXPECT_FALSE(check_processor_shares(1u << 31, 1u << 31));
  EXPECT_FALSE(take_processor_share(count, 1));
  const cpu_set_t after = processors();
  EXPECT_TRUE(CPU_EQUAL(&all, &after));
}

TEST(ProcessorShare, ATaskKeepsWhatItHasInCommonWithItsNode) {
  EXPECT_TRUE(holds_in_child([] {
    if (!take_processor_share(0, 1)) return false;
    const cpu_set_t before = processors();
    if (!share_processors_of(getppid())) return false;
    const cpu_set_t after = processors();
    return CPU_EQUAL(&before, &after) != 0;
  }));
}

}  // namespace
}  // namespace krg
