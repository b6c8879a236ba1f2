// What a further capture of a spread process has to have again.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/saved_pages.h"

#include <gtest/gtest.h>

#include "krg/shmem/page_set.h"
#include "spread/spread_messages.h"

namespace krg {
namespace {

SpreadRange range(uint64_t page_of_address, uint64_t count, uint64_t first) {
  SpreadRange made;
  made.start = RemoteAddr{page_of_address * kPageBytes};
  made.bytes = count * kPageBytes;
  made.first = PageIndex{first};
  return made;
}

PageMarks marks(std::initializer_list<uint64_t> pages) {
  PageMarks made;
  for (uint64_t page : pages) made.add(PageIndex{page});
  return made;
}

using Ranges = std::vector<SpreadRange>;

TEST(SavedPages, KnowsOnlyTheCaptureThatItWasToldLast) {
  SavedPages saved;
  EXPECT_FALSE(saved.is_of(0));
  saved.replace(7, {}, {});
  EXPECT_TRUE(saved.is_of(7));
  EXPECT_FALSE(saved.is_of(6));
  saved.forget();
  EXPECT_FALSE(saved.is_of(7));
  EXPECT_FALSE(saved.is_of(0));
}

TEST(SavedPages, WhatWasWrittenIsHadAgainAndTheRestIsTheSame) {
  SavedPages saved;
  saved.replace(1, {range(100, 10, 0)}, marks({0, 1, 2, 3, 5, 9}));
  const auto plan = saved.plan({range(100, 10, 0)}, marks({2, 7, 8}));
  EXPECT_EQ(plan.same,
            (Ranges{range(100, 2, 0), range(103, 1, 3), range(105, 1, 5), range(109, 1, 9)}));
  EXPECT_EQ(plan.changed, (Ranges{range(102, 1, 2), range(107, 2, 7)}));
}

TEST(SavedPages, OtherPagesAtTheSameAddressAreHadAgain) {
  SavedPages saved;
  saved.replace(1, {range(100, 4, 0), range(104, 4, 4)}, marks({0, 1, 2, 3, 4, 5, 6, 7}));
  const auto plan = saved.plan({range(100, 4, 4), range(200, 4, 0)}, {});
  EXPECT_EQ(plan.same, Ranges{});
  EXPECT_EQ(plan.changed, (Ranges{range(100, 4, 4), range(200, 4, 0)}));
}

TEST(SavedPages, ARangeThatIsCutOrHasGrownKeepsWhatItHad) {
  SavedPages saved;
  saved.replace(1, {range(100, 8, 20), range(300, 2, 50)}, marks({20, 21, 22, 23, 24, 27, 50, 51}));
  const auto plan =
      saved.plan({range(98, 2, 18), range(100, 2, 20), range(104, 6, 24), range(300, 2, 50)}, {});
  EXPECT_EQ(plan.same,
            (Ranges{range(100, 2, 20), range(104, 1, 24), range(107, 1, 27), range(300, 2, 50)}));
  EXPECT_EQ(plan.changed, (Ranges{range(98, 2, 18), range(108, 2, 28)}));
}

TEST(PageMarks, AreJoined) {
  PageMarks all = marks({3});
  all.add(std::vector<bool>{true, false});
  all.add(std::vector<bool>{false, false, false, false, true});
  for (uint64_t page : {0, 3, 4}) EXPECT_TRUE(all.has(PageIndex{page}));
  for (uint64_t page : {1, 2, 5, 1'000'000}) EXPECT_FALSE(all.has(PageIndex{page}));
}

TEST(PageMarks, TravelAsRuns) {
  std::vector<bool> pages(1000);
  for (size_t page : {0, 1, 2, 500, 998, 999}) pages[page] = true;
  const std::string packed = PageMarks::pack(pages);
  EXPECT_EQ(packed.size(), 1 + 3 * sizeof(PageNumbers));
  PageMarks all;
  EXPECT_TRUE(all.add_packed(packed));
  for (size_t page = 0; page < pages.size(); ++page)
    EXPECT_EQ(all.has(PageIndex{page}), pages[page]) << page;
  EXPECT_TRUE(all.add_packed(PageMarks::pack(std::vector<bool>())));
  EXPECT_FALSE(all.add_packed(PageMarks::pack(std::nullopt)));
  EXPECT_FALSE(all.add_packed(""));
  EXPECT_FALSE(all.add_packed(packed.substr(0, packed.size() - 1)));
}

}  // namespace
}  // namespace krg
