// SPDX-License-Identifier: GPL-2.0-or-later
#include "program_ranges.h"

#include <gtest/gtest.h>

#include <utility>

namespace krg {
namespace {

RemoteAddr page_address(uint64_t page) {
  return RemoteAddr{page * kPageBytes};
}
ProgramRange range(uint64_t at, uint64_t first, size_t pages) {
  return {page_address(at), PageIndex{first}, std::vector<bool>(pages)};
}
using Told = std::vector<std::pair<uint64_t, uint64_t>>;  // by page: where, which page of the set
Told told(const std::vector<ProgramRange>& ranges) {
  Told all;
  for (const ProgramRange& range : ranges)
    for (size_t i = 0; i < range.count(); ++i)
      all.emplace_back(range.address.value / kPageBytes + i, range.first.value + i);
  return all;
}

TEST(ProgramRanges, FindsByAddressAndByPage) {
  ProgramRanges ranges;
  for (uint64_t i = 0; i < 100; ++i) ranges.add(range(10'000 - 20 * i, 3000 + 10 * i, 10));
  EXPECT_EQ(ranges.size(), 100u);
  ASSERT_NE(ranges.at(page_address(9'985)), nullptr);
  EXPECT_EQ(ranges.at(page_address(9'985))->page_at(page_address(9'985)).value, 3015u);
  EXPECT_EQ(ranges.at(page_address(9'990)), nullptr);  // behind it
  EXPECT_EQ(ranges.at(page_address(9'979)), nullptr);  // before it
  EXPECT_EQ(ranges.below(page_address(9'980))->address, page_address(9'960));
  EXPECT_EQ(ranges.below(page_address(20)), nullptr);
  EXPECT_EQ(ranges.with_pages(PageIndex{3018}, 4),
            (std::vector{page_address(9'960), page_address(9'980)}));
  EXPECT_EQ(ranges.with_pages(PageIndex{0}, 1'000'000).size(), 100u);
  EXPECT_TRUE(ranges.with_pages(PageIndex{2990}, 10).empty());
}

TEST(ProgramRanges, APageMayBeMappedTwice) {
  ProgramRanges ranges;
  ranges.add(range(100, 0, 2000));  // of several groups
  ranges.add(range(5'000, 1500, 1));
  EXPECT_EQ(ranges.with_pages(PageIndex{1500}, 1),
            (std::vector{page_address(100), page_address(5'000)}));
  ranges.cut(page_address(1'600), page_address(1'601));
  EXPECT_EQ(ranges.with_pages(PageIndex{1500}, 1), std::vector{page_address(5'000)});
  EXPECT_EQ(ranges.size(), 3u);
}

TEST(ProgramRanges, CutsWhatLiesInside) {
  ProgramRanges ranges;
  ranges.add(range(10, 0, 10));
  ranges.add(range(20, 50, 10));
  ranges.at(page_address(19))->mapped[9] = true;
  const auto gone = ranges.cut(page_address(18), page_address(22));
  EXPECT_EQ(told(gone), (Told{{18, 8}, {19, 9}, {20, 50}, {21, 51}}));
  EXPECT_FALSE(gone.front().mapped[0]);
  EXPECT_TRUE(gone.front().mapped[1]);
  EXPECT_EQ(ranges.at(page_address(18)), nullptr);
  EXPECT_EQ(ranges.at(page_address(22))->page_at(page_address(22)).value, 52u);
  EXPECT_EQ(ranges.at(page_address(17))->count(), 8u);
  EXPECT_EQ(told(ranges.in(page_address(16), page_address(24))),
            (Told{{16, 6}, {17, 7}, {22, 52}, {23, 53}}));
  EXPECT_TRUE(ranges.with_pages(PageIndex{50}, 2).empty());
}

TEST(ProgramRanges, WhatIsAddedTakesThePlaceOfWhatWasThere) {
  ProgramRanges ranges;
  ranges.add(range(10, 0, 10));
  ranges.add(range(12, 100, 2));
  EXPECT_EQ(told(ranges.in(page_address(11), page_address(15))),
            (Told{{11, 1}, {12, 100}, {13, 101}, {14, 4}}));
  EXPECT_TRUE(ranges.with_pages(PageIndex{2}, 2).empty());
}

TEST(ProgramRanges, OneGetsLonger) {
  ProgramRanges ranges;
  ranges.add(range(10, 500, 1));
  ranges.lengthen(page_address(10), 600);
  EXPECT_EQ(ranges.with_pages(PageIndex{1099}, 1), std::vector{page_address(10)});
  EXPECT_EQ(ranges.at(page_address(609))->page_at(page_address(609)).value, 1099u);
}

}  // namespace
}  // namespace krg
