// SPDX-License-Identifier: GPL-2.0-or-later
#include "memory_ledger.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

constexpr NodeId kFirst{0}, kSecond{1};

TEST(MemoryBook, PromisesNothingTwice) {
  MemoryBook book(2, 100);
  EXPECT_TRUE(book.promise(kFirst, 150));
  EXPECT_FALSE(book.promise(kSecond, 51));
  EXPECT_TRUE(book.promise(kSecond, 50));
  EXPECT_EQ(book.left(), 0u);
  book.give_back(kFirst, 10);
  EXPECT_EQ(book.left(), 10u);
}

TEST(MemoryBook, ANodesEndTakesItsMemoryAndItsPromises) {
  MemoryBook book(3, 100);
  EXPECT_TRUE(book.promise(kFirst, 150));
  EXPECT_TRUE(book.promise(kSecond, 50));
  book.node_failed(kSecond);
  EXPECT_EQ(book.left(), 50u);
  book.node_failed(NodeId{2});
  EXPECT_EQ(book.left(), 0u);
  EXPECT_FALSE(book.promise(kFirst, 1));
  book.give_back(kFirst, 60);
  EXPECT_EQ(book.left(), 10u);
}

}  // namespace
}  // namespace krg
