// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_list.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

TEST(PageList, WhatComesFirstIsNumberedFirst) {
  const PageList pages({{.start = {0x10000}, .bytes = 3 * kMovedPageBytes},
                        {.start = {0x20000}, .bytes = 2 * kMovedPageBytes, .comes_first = 1},
                        {.start = {0x30000}, .bytes = kMovedPageBytes},
                        {.start = {0x40000}, .bytes = kMovedPageBytes, .comes_first = 1}});
  EXPECT_EQ(pages.count(), 7u);
  EXPECT_EQ(pages.first_later(), 3u);
  const uint64_t addresses[] = {0x20000, 0x21000, 0x40000, 0x10000, 0x11000, 0x12000, 0x30000};
  for (uint64_t page = 0; page < 7; ++page)
    EXPECT_EQ(pages.address_of(page).value, addresses[page]) << page;
  EXPECT_EQ(pages.run_from(0), 2u);
  EXPECT_EQ(pages.run_from(1), 1u);
  EXPECT_EQ(pages.run_from(4), 2u);
  for (uint64_t page = 0; page < 7; ++page)
    EXPECT_EQ(pages.page_at({addresses[page]}), page) << page;
  for (uint64_t nowhere : {0x0f000, 0x13000, 0x22000, 0x31000, 0x41000})
    EXPECT_EQ(pages.page_at({nowhere}), std::nullopt);
}

TEST(PageList, None) {
  const PageList pages({});
  EXPECT_EQ(pages.count(), 0u);
  EXPECT_EQ(pages.first_later(), 0u);
}

TEST(PageBits, FindsWhatIsSet) {
  for (uint64_t size : {1u, 63u, 64u, 65u, 200u}) {
    PageBits bits(size, true);
    EXPECT_EQ(bits.set_count(), size);
    EXPECT_EQ(bits.next(size - 1), size - 1);
    EXPECT_EQ(bits.next(size), size);
    EXPECT_EQ(bits.run(0, 1000), size);
    for (uint64_t bit = 0; bit + 1 < size; ++bit) bits.clear(bit);
    EXPECT_EQ(bits.next(0), size - 1);
    bits.clear(size - 1);
    EXPECT_FALSE(bits.any());
    EXPECT_EQ(bits.next(0), size);
    bits.set(size / 2);
    bits.set(size / 2);
    EXPECT_EQ(bits.set_count(), 1u);
    EXPECT_EQ(bits.next(0), size / 2);
    EXPECT_EQ(bits.run(size / 2, 5), 1u);
  }
  EXPECT_FALSE(PageBits(0, true).any());
}

}  // namespace
}  // namespace krg
