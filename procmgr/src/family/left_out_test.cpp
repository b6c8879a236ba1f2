// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/left_out.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

constexpr uint64_t kPage = 4096, kHuge = 2u << 20;

PageRange range(uint64_t start, uint64_t bytes, uint8_t is_huge = 0) {
  PageRange made{.start = RemoteAddr{start}, .bytes = bytes};
  made.is_huge = is_huge;
  return made;
}

TEST(LeftOut, LeavesWhatLiesElsewhere) {
  std::vector<PageRange> pages{range(kPage, kPage), range(4 * kPage, 2 * kPage)};
  const auto before = pages;
  leave_out(pages, std::vector{range(2 * kPage, 2 * kPage), range(6 * kPage, kPage)});
  EXPECT_EQ(pages, before);
}

TEST(LeftOut, CutsAtBothEndsInTheMiddleAndAll) {
  std::vector<PageRange> pages{range(0, 4 * kPage), range(8 * kPage, 3 * kPage),
                               range(16 * kPage, kPage)};
  leave_out(pages, std::vector{range(3 * kPage, 6 * kPage), range(9 * kPage, kPage),
                               range(15 * kPage, 4 * kPage)});
  EXPECT_EQ(pages, (std::vector{range(0, 3 * kPage), range(10 * kPage, kPage)}));
}

TEST(LeftOut, OneRangeMayLoseSeveralParts) {
  std::vector<PageRange> pages{range(0, 10 * kPage)};
  leave_out(pages, std::vector{range(kPage, kPage), range(5 * kPage, 2 * kPage)});
  EXPECT_EQ(pages, (std::vector{range(0, kPage), range(2 * kPage, 3 * kPage),
                                range(7 * kPage, 3 * kPage)}));
}

TEST(LeftOut, HugePagesAreLeftOutWholeOnly) {
  std::vector<PageRange> pages{range(0, 4 * kHuge, 1)};
  leave_out(pages, std::vector{range(kHuge - kPage, 2 * kHuge)});
  EXPECT_EQ(pages, (std::vector{range(0, kHuge, 1), range(2 * kHuge, 2 * kHuge, 1)}));
  leave_out(pages, std::vector{range(3 * kHuge - kPage, kHuge)});
  EXPECT_EQ(pages, (std::vector{range(0, kHuge, 1), range(2 * kHuge, 2 * kHuge, 1)}));
}

TEST(LeftOut, TellsWhetherAllIsStillLeftOut) {
  const std::vector now{range(0, 4 * kPage), range(8 * kPage, kPage)};
  EXPECT_TRUE(is_left_out({}, now));
  EXPECT_TRUE(is_left_out(std::vector{range(kPage, kPage), range(8 * kPage, kPage)}, now));
  EXPECT_FALSE(is_left_out(std::vector{range(3 * kPage, 2 * kPage)}, now));
  EXPECT_FALSE(is_left_out(now, {}));
}

}  // namespace
}  // namespace krg
