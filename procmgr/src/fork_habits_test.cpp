// SPDX-License-Identifier: GPL-2.0-or-later
#include "fork_habits.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace krg {
namespace {

constexpr ForkHabits::Program kShell{1, 10}, kSolver{1, 11};

TEST(ForkHabits, AnUnknownProgramIsExpectedToRunOn) {
  EXPECT_FALSE(ForkHabits().expects_exec(kShell));
}

TEST(ForkHabits, EachProgramIsJudgedByItsOwnChildren) {
  ForkHabits habits;
  habits.execed(kShell);
  habits.ran_on(kSolver);
  EXPECT_TRUE(habits.expects_exec(kShell));
  EXPECT_FALSE(habits.expects_exec(kSolver));
}

TEST(ForkHabits, OneExceptionDoesNotChangeAHabit) {
  ForkHabits habits;
  for (int i = 0; i < 9; ++i) habits.execed(kShell);
  habits.ran_on(kShell);
  EXPECT_TRUE(habits.expects_exec(kShell));
  habits.ran_on(kShell);
  EXPECT_FALSE(habits.expects_exec(kShell));
}

TEST(ForkHabits, ManyProgramsDoNotPileUp) {
  ForkHabits habits;
  for (ino_t i = 0; i < 10 * kMaxForkHabits; ++i) habits.execed({2, i});
  habits.execed(kShell);
  EXPECT_TRUE(habits.expects_exec(kShell));
}

}  // namespace
}  // namespace krg
