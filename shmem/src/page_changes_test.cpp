// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_changes.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace krg {
namespace {

constexpr size_t kBytes = 4096;
using Page = std::vector<std::byte>;

std::string changes_of(const Page& page, Page& twin) {
  std::string changes;
  take_changes(page, twin, changes);
  return changes;
}

TEST(PageChanges, OfTheSameAreNone) {
  const Page page(kBytes, std::byte{7});
  Page twin = page;
  std::string changes;
  EXPECT_FALSE(take_changes(page, twin, changes));
  Page other(kBytes);
  std::string_view rest = changes;
  ASSERT_TRUE(put_changes(rest, other, {}));
  EXPECT_TRUE(rest.empty());
  EXPECT_EQ(other, Page(kBytes));
}

TEST(PageChanges, OfTwoWritersMeetByteByByte) {
  const Page start(kBytes, std::byte{0x55});
  Page even = start, odd = start, even_twin = start, odd_twin = start, home = start;
  for (size_t i = 0; i < kBytes; ++i) (i % 2 ? odd : even)[i] = static_cast<std::byte>(i * 7 + 1);
  const std::string both = changes_of(even, even_twin) + changes_of(odd, odd_twin);
  EXPECT_EQ(even, even_twin);
  std::string_view rest = both;
  ASSERT_TRUE(put_changes(rest, home, {}));
  ASSERT_TRUE(put_changes(rest, home, {}));
  EXPECT_TRUE(rest.empty());
  for (size_t i = 0; i < kBytes; ++i) EXPECT_EQ(home[i], static_cast<std::byte>(i * 7 + 1)) << i;
}

TEST(PageChanges, LeaveWhatIsWrittenMeanwhile) {
  const Page start(kBytes);
  Page here = start, twin = start;
  Page there = start, there_twin = start;
  there[5] = std::byte{1};
  const std::string came = changes_of(there, there_twin);
  here[4] = std::byte{2};
  std::string_view rest = came;
  ASSERT_TRUE(put_changes(rest, here, twin));
  EXPECT_EQ(here[4], std::byte{2});
  EXPECT_EQ(here[5], std::byte{1});
  EXPECT_EQ(twin[4], std::byte{0});
  EXPECT_EQ(twin[5], std::byte{1});
  // What came is not told again.
  Page home = start;
  const std::string back = changes_of(here, twin);
  rest = back;
  ASSERT_TRUE(put_changes(rest, home, {}));
  EXPECT_EQ(home[4], std::byte{2});
  EXPECT_EQ(home[5], std::byte{0});
}

TEST(PageChanges, AnyThatWereTakenCanBePut) {
  std::mt19937 random(4711);
  for (int round = 0; round < 200; ++round) {
    Page before(kBytes), after(kBytes);
    for (auto& byte : before) byte = static_cast<std::byte>(random());
    after = before;
    for (unsigned writes = random() % (1u << random() % 13); writes > 0; --writes)
      after[random() % kBytes] = static_cast<std::byte>(random());
    Page twin = before, other = before;
    const std::string changes = changes_of(after, twin);
    std::string_view rest = changes;
    ASSERT_TRUE(put_changes(rest, other, {}));
    ASSERT_TRUE(rest.empty());
    ASSERT_EQ(other, after);
    ASSERT_LE(changes.size(), kBytes + kBytes / 8 + 4 * (kBytes / 16 + 1)) << round;
  }
}

TEST(PageChanges, OfAnyBytesOfAWordAreTold) {
  for (unsigned which = 0; which < 256; ++which) {
    Page here(kBytes, std::byte{0x11}), twin = here, there(kBytes, std::byte{0x33});
    for (unsigned i = 0; i < 8; ++i)
      if (which >> i & 1) here[kBytes - 8 + i] = std::byte{0x22};
    const std::string changes = changes_of(here, twin);
    std::string_view rest = changes;
    ASSERT_TRUE(put_changes(rest, there, {}));
    for (unsigned i = 0; i < 8; ++i)
      EXPECT_EQ(there[kBytes - 8 + i], which >> i & 1 ? std::byte{0x22} : std::byte{0x33}) << which;
  }
}

TEST(PageChanges, BadOnesAreRefused) {
  Page page(kBytes);
  std::string_view none, cut("\x01\0\x02\0\xff", 5), behind("\xff\x01\x02\0", 4);
  EXPECT_FALSE(put_changes(none, page, {}));
  EXPECT_FALSE(put_changes(cut, page, {}));
  EXPECT_FALSE(put_changes(behind, page, {}));
}

}  // namespace
}  // namespace krg
