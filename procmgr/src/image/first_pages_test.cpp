// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/first_pages.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

constexpr uint64_t kPage = 4096;

PageRange range(uint64_t first, uint64_t end, bool comes_first = false) {
  return {.start = {first * kPage}, .bytes = (end - first) * kPage, .comes_first = comes_first};
}

std::vector<std::pair<uint64_t, uint64_t>> pages_of(const std::vector<PageRange>& ranges) {
  std::vector<std::pair<uint64_t, uint64_t>> pages;
  for (const PageRange& r : ranges)
    pages.emplace_back(r.start.value / kPage, r.end().value / kPage);
  return pages;
}

using Pages = std::vector<std::pair<uint64_t, uint64_t>>;

ProcessImage image_at(uint64_t stack_page, uint64_t pointer_page) {
  ProcessImage image;
  ImageThread& thread = image.threads.emplace_back();
  thread.registers.rsp = stack_page * kPage + 3000;
  thread.registers.rbx = pointer_page * kPage + 8;
  return image;
}

ImageMapping mapping(uint64_t first, uint64_t end, ImageMapping::Kind kind) {
  ImageMapping mapping;
  mapping.start = {first * kPage};
  mapping.bytes = (end - first) * kPage;
  mapping.kind = kind;
  return mapping;
}

TEST(FirstPages, WhatRegistersSpeakOfIsCutOut) {
  std::vector<PageRange> ranges{range(10, 20), range(100, 120)};
  const auto taken = take_first_pages(ranges, image_at(110, 12), 1u << 20);
  EXPECT_EQ(pages_of(taken), (Pages{{12, 13}, {110, 113}}));
  EXPECT_EQ(pages_of(ranges), (Pages{{10, 12}, {13, 20}, {100, 110}, {113, 120}}));
}

TEST(FirstPages, ThoseThatComeFirstGoAlongWhenThereIsRoom) {
  std::vector<PageRange> ranges{range(10, 14, true), range(50, 60)};
  auto taken = take_first_pages(ranges, image_at(58, 1), 8 * kPage);
  EXPECT_EQ(pages_of(taken), (Pages{{10, 14}, {58, 60}}));
  EXPECT_TRUE(taken[0].comes_first);
  EXPECT_EQ(pages_of(ranges), (Pages{{50, 58}}));

  ranges = {range(10, 14, true), range(50, 60)};
  taken = take_first_pages(ranges, image_at(58, 1), 3 * kPage);
  EXPECT_EQ(pages_of(taken), (Pages{{58, 60}}));
  EXPECT_EQ(pages_of(ranges), (Pages{{10, 14}, {50, 58}}));
}

TEST(FirstPages, NoMoreThanThereIsRoom) {
  std::vector<PageRange> ranges{range(0, 1000)};
  ProcessImage image;
  for (uint64_t i = 0; i < 100; ++i) image.threads.push_back(image_at(i * 10, i * 10).threads[0]);
  EXPECT_EQ(pages_of(take_first_pages(ranges, image, 2 * kPage)).size(), 1u);
  uint64_t left = 0;
  for (const PageRange& r : ranges) left += r.bytes;
  EXPECT_EQ(left, 998 * kPage);
}

TEST(FirstPages, NothingIsTakenOfWhatHasNoContent) {
  std::vector<PageRange> ranges{range(10, 20)};
  EXPECT_TRUE(take_first_pages(ranges, image_at(500, 600), 1u << 20).empty());
  EXPECT_EQ(pages_of(ranges), (Pages{{10, 20}}));
}

TEST(FirstPages, FilesAndArgumentsAreMarked) {
  ProcessImage image = image_at(110, 12);
  image.mappings = {mapping(14, 16, ImageMapping::Kind::kFile),
                    mapping(16, 116, ImageMapping::Kind::kAnonymous),
                    mapping(200, 210, ImageMapping::Kind::kFile)};
  image.layout.arg_start = 110 * kPage + 7;
  image.layout.env_end = 111 * kPage + 1;
  image.layout.arg_end = image.layout.env_start = 110 * kPage + 90;
  const auto marked = mark_first_pages(
      {range(10, 13), range(13, 20), range(50, 112), range(150, 160), range(205, 220)}, image);
  EXPECT_EQ(pages_of(marked), (Pages{{10, 13},
                                     {13, 14},
                                     {14, 16},
                                     {16, 20},
                                     {50, 110},
                                     {110, 112},
                                     {150, 160},
                                     {205, 210},
                                     {210, 220}}));
  std::vector<bool> first;
  for (const PageRange& one : marked) first.push_back(one.comes_first);
  EXPECT_EQ(first, (std::vector<bool>{false, false, true, false, false, true, false, true, false}));
}

}  // namespace
}  // namespace krg
