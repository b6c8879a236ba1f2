// SPDX-License-Identifier: GPL-2.0-or-later
#include "phase_memory.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

constexpr uint32_t kThread = 7;
constexpr uint64_t kLoop = 100, kAfter = 101;

PhaseMemory::Touch touch(uint64_t page, bool write = false) {
  return {{1, RemoteAddr{page * kPageBytes}}, {page}, write};
}

bool lacks_all(PageIndex, bool) {
  return true;
}
bool lacks_none(PageIndex, bool) {
  return false;
}

std::vector<uint64_t> pages_of(const std::vector<PhaseMemory::Touch>& touches) {
  std::vector<uint64_t> pages;
  for (const auto& one : touches) pages.push_back(one.page.value);
  return pages;
}

using Numbers = std::vector<uint64_t>;

TEST(PhaseMemory, WhatAPhaseTouchedIsToldWhenItBeginsAgain) {
  PhaseMemory memory;
  EXPECT_FALSE(memory.is_used());
  EXPECT_TRUE(memory.begin(kThread, kLoop, lacks_all).empty());
  memory.on_fault(kThread, touch(9));
  memory.on_fault(kThread, touch(3));
  memory.on_fault(kThread, touch(3, true));
  EXPECT_TRUE(memory.begin(kThread, kAfter, lacks_all).empty());
  memory.on_fault(kThread, touch(5));
  const auto again = memory.begin(kThread, kLoop, lacks_all);
  ASSERT_EQ(pages_of(again), (Numbers{3, 9}));
  EXPECT_TRUE(again[0].write);
  EXPECT_FALSE(again[1].write);
  EXPECT_EQ(again[1].at.address, RemoteAddr{9 * kPageBytes});
  EXPECT_EQ(pages_of(memory.begin(kThread, kAfter, lacks_all)), Numbers{5});
  EXPECT_TRUE(memory.begin(kThread + 1, kLoop, lacks_all).empty()) << "another thread's";
}

TEST(PhaseMemory, WhatAPhaseWritesIsKnownWhenItReadsIt) {
  PhaseMemory memory;
  EXPECT_FALSE(memory.expects_write(kThread, {1}));
  memory.begin(kThread, kLoop, lacks_all);
  memory.on_fault(kThread, touch(1));
  EXPECT_FALSE(memory.expects_write(kThread, {1}));
  memory.on_fault(kThread, touch(1, true));
  EXPECT_TRUE(memory.expects_write(kThread, {1}));
  memory.begin(kThread, kAfter, lacks_all);
  EXPECT_FALSE(memory.expects_write(kThread, {1}));
}

TEST(PhaseMemory, APageWrittenOnceAndReadSinceThenIsNotAskedForToWrite) {
  PhaseMemory memory;
  memory.begin(kThread, kLoop, lacks_all);
  memory.on_fault(kThread, touch(1, true));
  unsigned writes = 0;
  for (unsigned i = 0; i < 100; ++i) {
    writes += memory.expects_write(kThread, {1});
    memory.on_fault(kThread, touch(1));
  }
  EXPECT_EQ(writes, 1u);
}

TEST(PhaseMemory, APageReadAndWrittenAgainAndAgainIsAskedForToWriteNearlyAlways) {
  PhaseMemory memory;
  memory.begin(kThread, kLoop, lacks_all);
  memory.on_fault(kThread, touch(1, true));
  unsigned writes = 0;
  constexpr unsigned kTimes = 1000;
  for (unsigned i = 0; i < kTimes; ++i) {
    const bool to_write = memory.expects_write(kThread, {1});
    memory.on_fault(kThread, touch(1));
    writes += to_write;
    if (!to_write) memory.on_fault(kThread, touch(1, true));
  }
  EXPECT_GT(writes, kTimes * 95 / 100);
  EXPECT_LT(writes, kTimes);
}

TEST(PhaseMemory, PagesThatAreHereAreNotTold) {
  PhaseMemory memory;
  memory.begin(kThread, kLoop, lacks_all);
  memory.on_fault(kThread, touch(1));
  memory.on_fault(kThread, touch(2));
  const auto lacks_two = [](PageIndex page, bool) { return page.value == 2; };
  EXPECT_EQ(pages_of(memory.begin(kThread, kLoop, lacks_two)), Numbers{2});
  for (unsigned i = 0; i < PhaseMemory::kIdle; ++i) memory.begin(kThread, kLoop, lacks_none);
  EXPECT_TRUE(memory.begin(kThread, kLoop, lacks_all).empty()) << "nobody else wants them";
}

TEST(PhaseMemory, APageThatIsNotTouchedAnyMoreIsForgotten) {
  PhaseMemory memory;
  memory.begin(kThread, kLoop, lacks_all);
  memory.on_fault(kThread, touch(1));
  for (unsigned i = 0; i < PhaseMemory::kFirstTrust; ++i)
    EXPECT_EQ(memory.begin(kThread, kLoop, lacks_all).size(), 1u);
  for (unsigned i = 0; i < 10; ++i)
    EXPECT_TRUE(memory.begin(kThread, kLoop, lacks_all).empty()) << i;
}

TEST(PhaseMemory, APageThatIsStillTouchedIsTrustedLonger) {
  PhaseMemory memory;
  memory.begin(kThread, kLoop, lacks_all);
  memory.on_fault(kThread, touch(1, true));
  unsigned told = 0;
  for (unsigned trust = PhaseMemory::kFirstTrust; trust < PhaseMemory::kMostTrust; trust *= 2) {
    told = 0;
    while (!memory.begin(kThread, kLoop, lacks_all).empty()) ++told;
    EXPECT_EQ(told, trust);
    memory.on_fault(kThread, touch(1));
  }
  const auto last = memory.begin(kThread, kLoop, lacks_all);
  ASSERT_EQ(last.size(), 1u);
  EXPECT_FALSE(last[0].write) << "no fault has written it since it was looked at";
}

TEST(PhaseMemory, APageThatOthersTakeInTheMiddleOfThePhaseIsLeftAloneForAWhile) {
  PhaseMemory memory;
  memory.begin(kThread, kLoop, lacks_all);
  for (unsigned i = 0; i < PhaseMemory::kContested; ++i) memory.on_fault(kThread, touch(1, true));
  for (unsigned i = 0; i < PhaseMemory::kRest; ++i)
    EXPECT_TRUE(memory.begin(kThread, kLoop, lacks_all).empty());
  EXPECT_EQ(memory.begin(kThread, kLoop, lacks_all).size(), 1u);
}

TEST(PhaseMemory, PagesFetchedBesideAFaultBelongToThePhase) {
  PhaseMemory memory;
  memory.on_fetched(kThread, touch(1));
  memory.begin(kThread, kLoop, lacks_all);
  memory.on_fault(kThread, touch(1));
  memory.on_fetched(kThread, touch(2));
  EXPECT_EQ(pages_of(memory.begin(kThread, kLoop, lacks_all)), (Numbers{1, 2}));
}

TEST(PhaseMemory, ItDoesNotGrowForEver) {
  PhaseMemory memory;
  memory.begin(kThread, kLoop, lacks_all);
  for (uint64_t page = 0; page <= PhaseMemory::kMostPages; ++page)
    memory.on_fault(kThread, touch(page));
  EXPECT_TRUE(memory.begin(kThread, kLoop, lacks_all).empty());
}

}  // namespace
}  // namespace krg
