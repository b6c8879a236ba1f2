// SPDX-License-Identifier: GPL-2.0-or-later
#include "memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

using namespace krg::omp;

namespace {

std::uintptr_t address_of(void* block) {
  return reinterpret_cast<std::uintptr_t>(block);
}

TEST(BlockCache, BlocksAreAlignedAndDoNotOverlap) {
  BlockCache blocks;
  std::vector<std::pair<char*, std::size_t>> all;
  for (std::size_t bytes : {1U, 64U, 65U, 300U, 4096U, 5000U, 65536U, 65537U, 1U << 20}) {
    for (int i = 0; i < 5; ++i) {
      char* block = static_cast<char*>(blocks.allocate(Side::node, bytes));
      EXPECT_EQ(address_of(block) % 64, 0u);
      if (bytes == 4096 || bytes == 5000) {
        EXPECT_EQ(address_of(block) % 4096, 0u);
      }
      std::memset(block, int(all.size()), bytes);
      all.emplace_back(block, bytes);
    }
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].first[0], char(i));
    EXPECT_EQ(all[i].first[all[i].second - 1], char(i));
    blocks.free(Side::node, all[i].first, all[i].second);
  }
}

// No page has blocks of both sides: one is the runtime's own on each node, the other the program's
// on all.
TEST(BlockCache, SidesShareNoPage) {
  BlockCache blocks;
  std::vector<std::uintptr_t> pages[2];
  for (int i = 0; i < 2000; ++i) {
    for (Side side : {Side::node, Side::program})
      pages[unsigned(side)].push_back(address_of(blocks.allocate(side, 64 + std::size_t(i) % 500)) /
                                      4096);
  }
  for (const std::uintptr_t page : pages[0])
    EXPECT_EQ(std::count(pages[1].begin(), pages[1].end(), page), 0);
}

TEST(BlockCache, WhatOneThreadFreesAnotherOneGets) {
  BlockCache maker;
  std::vector<void*> first;
  for (int i = 0; i < 1000; ++i) first.push_back(maker.allocate(Side::node, 256));
  std::thread([&] {
    BlockCache freer;
    for (void* block : first) freer.free(Side::node, block, 256);
    freer.give_back();
  }).join();
  std::size_t again = 0;
  for (int i = 0; i < 1000; ++i) {
    void* block = maker.allocate(Side::node, 256);
    again += std::size_t(std::count(first.begin(), first.end(), block));
  }
  EXPECT_GE(again, 990u);
}

}  // namespace
