// SPDX-License-Identifier: GPL-2.0-or-later
#include "read_ahead.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace krg {
namespace {

// A program whose pages are mapped as soon as they are fetched: walks and counts its faults.
struct Walk {
  explicit Walk(unsigned m) : most(m) {}
  void touch(int64_t page, uint32_t thread = 1) {
    if (!mapped.insert(page).second) return;
    ++faults;
    ReadAhead::Plan plan = ahead.on_fault(thread, static_cast<uint64_t>(page), false, most);
    hits += plan.passed;
    for (unsigned i = 0; i < plan.count; ++i)
      fetched += mapped.insert(plan.first + plan.stride * static_cast<int64_t>(i)).second;
  }
  const unsigned most;
  ReadAhead ahead;
  std::set<int64_t> mapped;
  unsigned faults = 0, fetched = 0, hits = 0;
};

TEST(ReadAhead, AForwardScanSoonFaultsOncePerWindow) {
  Walk walk(256);
  for (int64_t page = 0; page < 10'000; ++page) walk.touch(page);
  EXPECT_LT(walk.faults, 60u);
  EXPECT_LE(walk.fetched, 10'000u + 256) << "nothing far beyond the scan";
  EXPECT_GT(walk.hits, 9'000u);
}

TEST(ReadAhead, SoDoesABackwardOneAndAStridedOne) {
  Walk backward(256), strided(256);
  for (int64_t page = 10'000; page > 0; --page) backward.touch(page);
  EXPECT_LT(backward.faults, 60u);
  for (int64_t page = 0; page < 10'000; page += 7) strided.touch(page);
  EXPECT_LT(strided.faults, 30u);
  for (int64_t page = 0; page < 10'000; ++page)
    EXPECT_EQ(strided.mapped.contains(page), page % 7 == 0) << page;
}

TEST(ReadAhead, ThreadsAndInterleavedRunsAreToldApart) {
  Walk threads(64), arrays(64);
  for (int64_t i = 0; i < 4'000; ++i)
    for (uint32_t thread = 0; thread < 4; ++thread) threads.touch(thread * 100'000 + i, thread);
  EXPECT_LT(threads.faults, 4 * 140u);
  for (int64_t i = 0; i < 4'000; ++i)
    for (int64_t array = 0; array < 3; ++array) arrays.touch(array * 100'000 + i);
  EXPECT_LT(arrays.faults, 3 * 140u);
}

TEST(ReadAhead, RandomFaultsFetchAlmostNothing) {
  Walk walk(256);
  std::mt19937 random(3);
  for (int i = 0; i < 5'000; ++i) walk.touch(static_cast<int64_t>(random() % 100'000'000));
  EXPECT_LT(walk.fetched, 50u);
}

TEST(ReadAhead, ARunThatWritesWhatItHasReadIsOneOfWrites) {
  ReadAhead ahead;
  for (uint64_t page = 0; page < 10; ++page) EXPECT_FALSE(ahead.on_fault(1, page, false, 64).write);
  ReadAhead::Plan plan = ahead.on_fault(1, 9, true, 64);
  EXPECT_TRUE(plan.write);
  EXPECT_GT(plan.count, 0u);
  EXPECT_EQ(plan.first, 10);
  EXPECT_TRUE(ahead.on_fault(1, 10, false, 64).write);
  for (uint64_t page = 11; page < 15; ++page) plan = ahead.on_fault(1, page, false, 64);
  EXPECT_FALSE(plan.write);
}

TEST(ReadAhead, NeverAsksForMoreThanItMay) {
  ReadAhead none, few;
  for (uint64_t page = 0; page < 100; ++page) EXPECT_EQ(none.on_fault(1, page, false, 0).count, 0u);
  for (uint64_t page = 0; page < 100; ++page) EXPECT_LE(few.on_fault(1, page, false, 3).count, 3u);
}

}  // namespace
}  // namespace krg
