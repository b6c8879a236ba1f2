// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/turn_trial.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

class TurnTrialTest : public testing::Test {
 protected:
  // Samples with short turns among so many, of threads that stop so often in each.
  unsigned short_turns(unsigned samples, uint64_t usually, uint64_t with_short,
                       bool crowded = true) {
    unsigned count = 0;
    for (unsigned i = 0; i < samples; ++i) {
      stops_ += is_short_ ? with_short : usually;
      is_short_ = trial_.look(stops_, crowded);
      count += is_short_;
    }
    return count;
  }

  TurnTrial trial_;
  uint64_t stops_ = 0;
  bool is_short_ = false;
};

TEST_F(TurnTrialTest, ThreadsThatWaitForEachOtherKeepThem) {
  constexpr unsigned kRound = TurnTrial::kKept + 2 * TurnTrial::kHalf;
  EXPECT_EQ(short_turns(1, 10, 200), 0u);
  EXPECT_EQ(short_turns(10 * kRound, 10, 200), 10 * (kRound - TurnTrial::kHalf));
}

TEST_F(TurnTrialTest, ThoseThatComputeHaveThemEverMoreSeldom) {
  EXPECT_LE(short_turns(2000, 100, 90), 10 * TurnTrial::kHalf);
}

TEST_F(TurnTrialTest, SoHaveThoseThatNeverStop) {
  EXPECT_LT(short_turns(2000, 0, 0), 10 * TurnTrial::kHalf);
}

TEST_F(TurnTrialTest, WhoHasAProcessorToItselfHasNone) {
  EXPECT_EQ(short_turns(100, 10, 200, false), 0u);
}

TEST_F(TurnTrialTest, WhatWasBeforeDoesNotCount) {
  stops_ = 1'000'000;
  trial_ = TurnTrial(stops_);
  EXPECT_EQ(short_turns(1, 5000, 5000), 0u) << "they come home";
  short_turns(2 * TurnTrial::kHalf, 10, 200);
  EXPECT_TRUE(trial_.has_shown());
}

TEST_F(TurnTrialTest, AMomentOfRestChangesNothing) {
  ASSERT_GT(short_turns(10, 10, 200), 0u);
  EXPECT_EQ(short_turns(3, 10, 0, false), 0u);
  EXPECT_EQ(short_turns(20, 10, 200), 20u);
}

}  // namespace
}  // namespace krg
