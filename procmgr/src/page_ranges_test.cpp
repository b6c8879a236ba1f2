// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_ranges.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace krg {
namespace {

TEST(PageRanges, FreeNeighboursBecomeOneRange) {
  PageRanges ranges;
  EXPECT_EQ(ranges.take(4).value, 0u);
  EXPECT_EQ(ranges.take(4).value, 4u);
  EXPECT_EQ(ranges.take(4).value, 8u);
  ranges.give_back({0}, 4);
  ranges.give_back({8}, 4);
  EXPECT_EQ(ranges.take(5).value, 12u);
  ranges.give_back({4}, 4);
  EXPECT_EQ(ranges.take(12).value, 0u);
  EXPECT_EQ(ranges.end(), 17u);
}

TEST(PageRanges, PartsOfARangeMayComeBack) {
  PageRanges ranges;
  ranges.take(10);
  ranges.give_back({2}, 3);
  EXPECT_EQ(ranges.take(4).value, 10u);
  EXPECT_EQ(ranges.take(3).value, 2u);
}

TEST(PageRanges, NoPageIsTakenTwice) {
  std::mt19937 random(1);
  PageRanges ranges;
  std::vector<bool> taken(10'000);
  std::vector<std::pair<uint64_t, size_t>> held;
  for (int step = 0; step < 2'000; ++step) {
    if (held.size() < 20 || random() % 2) {
      const size_t count = 1 + random() % 9;
      const uint64_t first = ranges.take(count).value;
      ASSERT_LT(first + count, taken.size());
      for (size_t i = 0; i < count; ++i) {
        EXPECT_FALSE(taken[first + i]);
        taken[first + i] = true;
      }
      held.emplace_back(first, count);
      if (held.size() < 60) continue;
    }
    std::swap(held[random() % held.size()], held.back());
    const auto [first, count] = held.back();
    held.pop_back();
    for (size_t i = 0; i < count; ++i) taken[first + i] = false;
    ranges.give_back({first}, count);
  }
}

}  // namespace
}  // namespace krg
