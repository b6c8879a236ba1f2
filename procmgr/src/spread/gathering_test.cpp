// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/gathering.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

using std::chrono::milliseconds;
using Advice = Gathering::Advice;

class GatheringTest : public testing::Test {
 protected:
  // In one period, of two threads and one processor at home.
  Advice look(milliseconds computed, uint64_t returns) {
    sample_.at += Gathering::kPeriod;
    sample_.computed += computed;
    sample_.returns += returns;
    return gathering_.look(sample_);
  }
  // The same of threads that look for words meanwhile.
  Advice look(milliseconds computed, milliseconds spun, uint64_t returns) {
    sample_.spun += spun;
    return look(computed, returns);
  }
  // Until there is advice, or `most` periods have gone by.
  Advice look_for(milliseconds computed, uint64_t returns, int most) {
    for (int i = 0; i < most; ++i)
      if (const Advice advice = look(computed, returns); advice != Advice::kStay) return advice;
    return Advice::kStay;
  }

  Gathering gathering_;
  Gathering::Sample sample_{.at = {}, .computed = {}, .threads = 2};
};

TEST_F(GatheringTest, ThreadsThatWaitForPagesAreGathered) {
  EXPECT_EQ(look_for(milliseconds(60), 500, 4), Advice::kGather);
  EXPECT_TRUE(gathering_.is_gathered());
}

TEST_F(GatheringTest, ThoseThatGetMoreDoneThanHomeCouldAreNot) {
  EXPECT_EQ(look_for(milliseconds(200), 1000, 100), Advice::kStay);
}

TEST_F(GatheringTest, ThoseThatWaitForSomethingElseAreNot) {
  EXPECT_EQ(look_for(milliseconds(0), 0, 100), Advice::kStay);
  EXPECT_EQ(look_for(milliseconds(5), 10, 100), Advice::kStay);
  EXPECT_EQ(look_for(milliseconds(100), 40, 100), Advice::kStay);
}

TEST_F(GatheringTest, LookingForWordsIsNoWork) {
  EXPECT_EQ(look(milliseconds(380), milliseconds(300), 500), Advice::kStay);
  EXPECT_EQ(look(milliseconds(380), milliseconds(300), 500), Advice::kStay);
  EXPECT_EQ(look(milliseconds(380), milliseconds(300), 500), Advice::kGather);
}

TEST_F(GatheringTest, PagesThatOtherNodesHandRoundCount) {
  Advice advice = Advice::kStay;
  for (int i = 0; i < 4 && advice == Advice::kStay; ++i) {
    sample_.returns_elsewhere += 1000;
    advice = look(milliseconds(60), 0);
  }
  EXPECT_EQ(advice, Advice::kGather);
}

TEST_F(GatheringTest, FewPagesThatTakeLongCount) {
  const auto look_waiting = [&](milliseconds waited) {
    sample_.waited += waited;
    return look(milliseconds(60), 10);
  };
  for (int i = 0; i < 20; ++i) EXPECT_EQ(look_waiting(milliseconds(5)), Advice::kStay);
  EXPECT_EQ(look_waiting(milliseconds(100)), Advice::kStay);
  EXPECT_EQ(look_waiting(milliseconds(100)), Advice::kGather);
}

TEST_F(GatheringTest, OneBadMomentIsNotEnough) {
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(look(milliseconds(20), 500), Advice::kStay);
    EXPECT_EQ(look(milliseconds(300), 10), Advice::kStay);
  }
}

TEST_F(GatheringTest, HomesProcessorsAreWhatItIsMeasuredBy) {
  sample_.threads = 8;
  sample_.processors = 4;
  EXPECT_EQ(look_for(milliseconds(600), 1000, 20), Advice::kStay);
  EXPECT_EQ(look_for(milliseconds(300), 1000, 4), Advice::kGather);
}

TEST_F(GatheringTest, TheyAreSentAwayEverMoreSeldom) {
  ASSERT_EQ(look_for(milliseconds(20), 500, 4), Advice::kGather);
  for (auto rest = Gathering::kFirstRest; rest <= Gathering::kLongestRest; rest *= 2) {
    const auto since = sample_.at;
    ASSERT_EQ(look_for(milliseconds(200), 0, 2000), Advice::kSpread);
    EXPECT_NEAR((sample_.at - since) / milliseconds(1), rest / milliseconds(1), 200);
    EXPECT_FALSE(gathering_.is_gathered());
    ASSERT_EQ(look_for(milliseconds(20), 500, 4), Advice::kGather);
  }
  const auto since = sample_.at;
  ASSERT_EQ(look_for(milliseconds(200), 0, 2000), Advice::kSpread);
  EXPECT_NEAR((sample_.at - since) / milliseconds(1), Gathering::kLongestRest / milliseconds(1),
              200);
}

TEST_F(GatheringTest, ThoseForWhomItPaysNowStayAway) {
  ASSERT_EQ(look_for(milliseconds(20), 500, 4), Advice::kGather);
  ASSERT_EQ(look_for(milliseconds(200), 0, 100), Advice::kSpread);
  EXPECT_EQ(look(milliseconds(0), 3000), Advice::kStay) << "what they need goes there first";
  EXPECT_EQ(look_for(milliseconds(380), 100, 100), Advice::kStay);
}

}  // namespace
}  // namespace krg
