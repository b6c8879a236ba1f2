// SPDX-License-Identifier: GPL-2.0-or-later
#include "contested_pages.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

constexpr PageIndex kPage{7};
constexpr uint64_t kAddress = 0x5000;
using Touches = ContestedPages::Touches;

TEST(ContestedPages, WritesAnewAreCounted) {
  ContestedPages pages;
  EXPECT_EQ(pages.on_fault(kPage, kAddress, false), 0u);
  EXPECT_EQ(pages.on_fault(kPage, kAddress, true), 0u);
  EXPECT_EQ(pages.on_fault(kPage, kAddress, false), 0u);
  EXPECT_EQ(pages.on_fault(kPage, kAddress, true), 1u);
  pages.forget(kPage);
  EXPECT_EQ(pages.on_fault(kPage, kAddress, true), 0u);
}

TEST(ContestedPages, TouchesAreThoseOfThisPhase) {
  ContestedPages pages;
  pages.on_fault(kPage, kAddress + 8, true);
  pages.on_fault(kPage, kAddress + 8, true);
  pages.on_fault(kPage, kAddress + 16, false);
  EXPECT_EQ(pages.touched(kPage), (Touches{{8, 1}, {16, 0}}));
  pages.begin_phase();
  EXPECT_TRUE(pages.touched(kPage).empty());
  pages.on_fault(kPage, kAddress, true);
  EXPECT_EQ(pages.touched(kPage), (Touches{{0, 1}}));
}

TEST(ContestedPages, TheSamePlaceIsAConflictWhereOneWrites) {
  EXPECT_TRUE(ContestedPages::conflict({{8, 1}}, {{4, 1}, {8, 0}}));
  EXPECT_TRUE(ContestedPages::conflict({{8, 0}}, {{8, 1}}));
  EXPECT_FALSE(ContestedPages::conflict({{8, 0}}, {{8, 0}}));
  EXPECT_FALSE(ContestedPages::conflict({{8, 1}}, {{9, 1}}));
  EXPECT_FALSE(ContestedPages::conflict({}, {{9, 1}}));
}

TEST(ContestedPages, TwoCleanPhasesAreEnoughOneBesideAnother) {
  ContestedPages pages;
  EXPECT_FALSE(pages.judge(kPage, false, false));
  EXPECT_TRUE(pages.judge(kPage, false, false));
  EXPECT_TRUE(pages.judge({8}, false, true));
}

TEST(ContestedPages, AConflictAsksForMoreAndThreeSettleIt) {
  ContestedPages pages;
  EXPECT_FALSE(pages.judge(kPage, true, false));
  for (unsigned i = 1; i < ContestedPages::kClean + ContestedPages::kCleanPerConflict; ++i)
    EXPECT_FALSE(pages.judge(kPage, false, false)) << i;
  EXPECT_TRUE(pages.judge(kPage, false, false));
  pages.judge(kPage, true, false);
  EXPECT_FALSE(pages.is_refused(kPage));
  pages.judge(kPage, true, false);
  EXPECT_TRUE(pages.is_refused(kPage));
  for (unsigned i = 0; i < 100; ++i) EXPECT_FALSE(pages.judge(kPage, false, true));
}

}  // namespace
}  // namespace krg
