// Which threads come back for what. SPDX-License-Identifier: GPL-2.0-or-later
#include "working_sets.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

using std::chrono::microseconds;

constexpr uint32_t kThread = 7, kOther = 8;
const WorkingSets::Clock::time_point kStart{};

struct WorkingSetsTest : ::testing::Test {
  bool shown(uint32_t thread, uint64_t page, uint64_t address, bool write, int after_us) {
    return sets.shown(thread, {PageIndex{page}, RemoteAddr{address}, write},
                      kStart + microseconds(after_us));
  }
  WorkingSets sets{microseconds(100)};
};

TEST_F(WorkingSetsTest, AThreadIsBackAtAnotherWordOfAPage) {
  EXPECT_FALSE(shown(kThread, 1, 0x1000, true, 0));
  EXPECT_FALSE(shown(kThread, 2, 0x2000, true, 10));
  EXPECT_TRUE(shown(kThread, 1, 0x1008, true, 20));
  EXPECT_FALSE(shown(kOther, 1, 0x1010, true, 30)) << "another thread has not been there";
}

TEST_F(WorkingSetsTest, NotWhenItLooksAtTheSameWordAgain) {
  EXPECT_FALSE(shown(kThread, 1, 0x1000, false, 0));
  EXPECT_FALSE(shown(kThread, 1, 0x1000, false, 10));
  EXPECT_TRUE(shown(kThread, 1, 0x1000, true, 20)) << "it writes what it had read";
  EXPECT_FALSE(shown(kThread, 1, 0x1000, true, 30)) << "a lock's word";
}

TEST_F(WorkingSetsTest, NotAfterLong) {
  EXPECT_FALSE(shown(kThread, 1, 0x1000, true, 0));
  EXPECT_FALSE(shown(kThread, 1, 0x1008, true, 100));
  EXPECT_TRUE(shown(kThread, 1, 0x1010, true, 199));
}

TEST_F(WorkingSetsTest, NotAfterSixteenOtherPages) {
  EXPECT_FALSE(shown(kThread, 0, 0x1000, true, 0));
  for (uint64_t page = 1; page <= 16; ++page) EXPECT_FALSE(shown(kThread, page, 0x1000, true, 1));
  EXPECT_FALSE(shown(kThread, 0, 0x1008, true, 2));
  EXPECT_TRUE(shown(kThread, 16, 0x1008, true, 3));
}

TEST_F(WorkingSetsTest, WhatWasTakenIsForgotten) {
  shown(kThread, 3, 0x1000, true, 0);
  shown(kThread, 5, 0x1000, true, 0);
  shown(kOther, 9, 0x1000, true, 0);
  const std::vector<PageIndex> both{PageIndex{3}, PageIndex{5}};
  EXPECT_EQ(sets.pages_of(kThread), both);
  EXPECT_EQ(sets.take(kThread), both);
  EXPECT_TRUE(sets.take(kThread).empty());
  EXPECT_FALSE(shown(kThread, 3, 0x1008, true, 1));
  EXPECT_EQ(sets.pages_of(kOther), std::vector<PageIndex>{PageIndex{9}});
}

}  // namespace
}  // namespace krg
