// Which pages of shared memory are the same as in the capture before.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/page_digests.h"

#include <gtest/gtest.h>

#include <map>

#include "family/family_memory.h"

namespace krg {
namespace {

constexpr uint64_t kPage = 4096;

// By page number: the byte that it is full of.
CopiedPages made(const std::map<uint64_t, char>& pages) {
  FoundPages found;
  for (const auto& [number, value] : pages) {
    const std::vector<std::byte> page(kPage, static_cast<std::byte>(value));
    found.add(number * kPage, page.data());
  }
  auto copied = std::move(found).copy();
  EXPECT_TRUE(copied);
  return std::move(*copied);
}

PageRange range(uint64_t first, uint64_t count, bool is_clean) {
  return {.start = {first * kPage}, .bytes = count * kPage, .is_clean = is_clean};
}

TEST(PageDigestsTest, AFirstCaptureHasAll) {
  PageDigests digests;
  EXPECT_EQ(digests.take(made({{1, 'a'}, {2, 'b'}, {9, 'c'}}), nullptr),
            (std::vector<PageRange>{range(1, 2, false), range(9, 1, false)}));
}

TEST(PageDigestsTest, WhatIsTheSameAtTheSamePlaceIsClean) {
  PageDigests before, now;
  before.take(made({{1, 'a'}, {2, 'b'}, {3, 'c'}, {5, 'e'}, {9, 'f'}}), nullptr);
  EXPECT_EQ(now.take(made({{1, 'a'}, {2, 'x'}, {3, 'c'}, {4, 'c'}, {9, 'f'}, {10, 'f'}}), &before),
            (std::vector<PageRange>{range(1, 1, true), range(2, 1, false), range(3, 1, true),
                                    range(4, 1, false), range(9, 1, true), range(10, 1, false)}));
}

TEST(PageDigestsTest, PagesThatWereNoneAreNotClean) {
  PageDigests first, second, third;
  first.take(made({{1, 'a'}, {2, 'b'}}), nullptr);
  second.take(made({{1, 'a'}}), &first);  // page 2 was zeros then
  EXPECT_EQ(third.take(made({{1, 'a'}, {2, 'b'}}), &second),
            (std::vector<PageRange>{range(1, 1, true), range(2, 1, false)}));
}

TEST(PageDigestsTest, OneByteIsEnough) {
  PageDigests before, now;
  auto pages = made({{7, 'a'}});
  before.take(pages, nullptr);
  pages.bytes.get()[kPage - 1] = std::byte{'b'};
  EXPECT_EQ(now.take(pages, &before), (std::vector<PageRange>{range(7, 1, false)}));
}

}  // namespace
}  // namespace krg
