// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/set_pages.h"

#include <gtest/gtest.h>

#include "krg/shmem/page_set.h"

namespace krg {
namespace {

constexpr uint64_t kFirst = 0x10000;

std::vector<std::byte> page_of(char fill) {
  return std::vector<std::byte>(kPageBytes, static_cast<std::byte>(fill));
}
RemoteAddr page_at(uint64_t number) {
  return {kFirst + number * kPageBytes};
}
SpreadRange pages_from(uint64_t number, uint64_t count) {
  SpreadRange range;
  range.start = page_at(number);
  range.bytes = count * kPageBytes;
  return range;
}

// A letter for each page, from the first that there is to the last; '.': none.
std::string shown(const CopiedPages& pages) {
  std::string all;
  for (uint64_t i = 0; i < 8; ++i) {
    const std::byte* page = pages.find(page_at(i));
    all += page ? static_cast<char>(page[kPageBytes - 1]) : '.';
  }
  return all;
}

TEST(SetPages, ComeInAnyOrder) {
  auto pages = SetPages::make(8 * kPageBytes);
  ASSERT_TRUE(pages);
  for (const auto& [number, fill] : {std::pair{5, 'f'}, {0, 'a'}, {1, 'b'}, {4, 'e'}})
    ASSERT_TRUE(pages->add(page_at(number), page_of(fill)));
  EXPECT_EQ(pages->bytes(), 4 * kPageBytes);
  const CopiedPages sorted = pages->sorted();
  EXPECT_EQ(shown(sorted), "ab..ef..");
  ASSERT_EQ(sorted.ranges.size(), 3u);  // the last two do not lie one behind the other
  EXPECT_EQ(sorted.ranges[0].bytes, 2 * kPageBytes);
}

TEST(SetPages, ReplaceThoseThatWereCopiedTooEarly) {
  auto pages = SetPages::make(4 * kPageBytes);
  ASSERT_TRUE(pages);
  for (const auto& [number, fill] : {std::pair{0, 'a'}, {1, 'b'}, {2, 'c'}, {3, 'd'}})
    ASSERT_TRUE(pages->add(page_at(number), page_of(fill)));
  EXPECT_EQ(pages->add(page_at(4), page_of('e')).error().errno_or(0), ENOSPC);
  pages->keep({pages_from(0, 1), pages_from(3, 1)});
  EXPECT_EQ(pages->bytes(), 2 * kPageBytes);
  ASSERT_TRUE(pages->add(page_at(6), page_of('G')));
  ASSERT_TRUE(pages->add(page_at(1), page_of('B')));
  EXPECT_EQ(pages->add(page_at(2), page_of('C')).error().errno_or(0), ENOSPC);
  EXPECT_EQ(shown(pages->sorted()), "aB.d..G.");
}

}  // namespace
}  // namespace krg
