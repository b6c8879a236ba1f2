// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_memory.h"

#include <gtest/gtest.h>

#include "krg/shmem/page_set.h"

namespace krg {
namespace {

constexpr uint32_t kRead = 1, kReadWrite = 3;

RemoteAddr at(uint64_t page) {
  return RemoteAddr{page * kPageBytes};
}
SpreadRange range(uint64_t page, uint64_t count, uint64_t first, uint32_t protection = kReadWrite) {
  return {.start = at(page),
          .bytes = count * kPageBytes,
          .first = PageIndex{first},
          .protection = protection};
}
using Ranges = std::vector<SpreadRange>;

TEST(SpreadMemory, PagesAreTakenAnewWhenTheyWereGivenBack) {
  SpreadMemory memory;
  EXPECT_EQ(memory.take_pages(1), PageIndex{0});
  EXPECT_EQ(memory.take_pages(3 * kPageBytes), PageIndex{1});
  EXPECT_EQ(memory.set_pages(), 4u);
  memory.give_back(range(10, 3, 1));
  EXPECT_EQ(memory.take_pages(2 * kPageBytes), PageIndex{1});
  EXPECT_EQ(memory.set_pages(), 4u);
}

TEST(SpreadMemory, UnmappingTheMiddleLeavesBothEnds) {
  SpreadMemory memory;
  memory.map(range(10, 10, 100));
  EXPECT_EQ(memory.unmap(at(13), 4 * kPageBytes), Ranges{range(13, 4, 103)});
  EXPECT_EQ(memory.all(), (Ranges{range(10, 3, 100), range(17, 3, 107)}));
  EXPECT_TRUE(memory.unmap(at(13), 4 * kPageBytes).empty());
}

TEST(SpreadMemory, UnmappingCrossesMappings) {
  SpreadMemory memory;
  memory.map(range(10, 2, 100));
  memory.map(range(12, 2, 50));
  memory.map(range(20, 2, 70));
  EXPECT_EQ(memory.unmap(at(11), 10 * kPageBytes),
            (Ranges{range(11, 1, 101), range(12, 2, 50), range(20, 1, 70)}));
  EXPECT_EQ(memory.all(), (Ranges{range(10, 1, 100), range(21, 1, 71)}));
}

TEST(SpreadMemory, AnAddressIsFoundInItsRange) {
  SpreadMemory memory;
  memory.map(range(10, 2, 100));
  memory.map(range(12, 2, 50));
  EXPECT_EQ(memory.find(at(11) + 8), range(10, 2, 100));
  EXPECT_FALSE(memory.find(at(14)) || memory.find(RemoteAddr{at(10).value - 1}));
  EXPECT_EQ(memory.offset_of(at(13) + 8, 8), 51 * kPageBytes + 8);
  EXPECT_FALSE(memory.offset_of(at(11) + 4092, 8)) << "the next pages of the set are others";
}

TEST(SpreadMemory, ProtectionOfAPartSplitsAMapping) {
  SpreadMemory memory;
  memory.map(range(10, 4, 100));
  EXPECT_TRUE(memory.protect(at(11), kPageBytes, kRead));
  EXPECT_EQ(memory.all(), (Ranges{range(10, 1, 100), range(11, 1, 101, kRead), range(12, 2, 102)}));
  EXPECT_FALSE(memory.protect(at(13), 2 * kPageBytes, kRead)) << "half of it is not mapped";
  EXPECT_EQ(memory.in(at(13), kPageBytes), Ranges{range(13, 1, 103, kRead)});
}

TEST(SpreadMemory, LookingChangesNothing) {
  SpreadMemory memory;
  memory.map(range(10, 4, 100));
  EXPECT_EQ(memory.in(at(9), 3 * kPageBytes), Ranges{range(10, 2, 100)});
  EXPECT_TRUE(memory.in(at(14), kPageBytes).empty());
  EXPECT_EQ(memory.all(), Ranges{range(10, 4, 100)});
}

TEST(SpreadMemory, BytesAreWholePages) {
  SpreadMemory memory;
  SpreadRange odd = range(10, 1, 100);
  odd.bytes = kPageBytes + 1;
  memory.map(odd);
  EXPECT_EQ(memory.unmap(at(11), 1), Ranges{range(11, 1, 101)});
}

}  // namespace
}  // namespace krg
