// SPDX-License-Identifier: GPL-2.0-or-later
#include "flock_table.h"

#include <gtest/gtest.h>

#include <optional>

namespace krg {
namespace {

using What = FlockRequest::What;

class FlockTableTest : public ::testing::Test {
 protected:
  // 0, an error, or nothing while it waits.
  std::shared_ptr<std::optional<int>> ask(uint64_t owner, What what, bool waits = false,
                                          uint64_t file = 1) {
    auto answer = std::make_shared<std::optional<int>>();
    table.lock(file, {owner, what, waits}, owner,
               [answer](Status had) { *answer = had ? 0 : had.error().errno_or(EIO); });
    return answer;
  }
  FlockTable table;
};

TEST_F(FlockTableTest, OneWriterOrManyReaders) {
  EXPECT_EQ(*ask(1, What::kShared), 0);
  EXPECT_EQ(*ask(2, What::kShared), 0);
  EXPECT_EQ(*ask(3, What::kExclusive), EWOULDBLOCK);
  EXPECT_EQ(*ask(3, What::kExclusive, false, 2), 0) << "another file";
  EXPECT_EQ(*ask(1, What::kUnlock), 0);
  EXPECT_EQ(*ask(2, What::kExclusive), 0) << "its own lock is none to it";
  EXPECT_EQ(*ask(1, What::kShared), EWOULDBLOCK);
}

TEST_F(FlockTableTest, WaitersAreServedInOrderAndCancelled) {
  EXPECT_EQ(*ask(1, What::kExclusive), 0);
  auto second = ask(2, What::kExclusive, true), third = ask(3, What::kShared, true),
       fourth = ask(4, What::kShared, true);
  EXPECT_EQ(*second, std::nullopt);
  table.release(1, 1);
  EXPECT_EQ(*second, 0);
  EXPECT_EQ(*third, std::nullopt);
  table.cancel(3);
  EXPECT_EQ(*third, EINTR);
  table.release(1, 2);
  EXPECT_EQ(*fourth, 0);
  EXPECT_TRUE(table.is_locked(1));
  table.release(1, 4);
  EXPECT_FALSE(table.is_locked(1));
}

TEST_F(FlockTableTest, AFailedChangeLosesTheOldLock) {
  EXPECT_EQ(*ask(1, What::kShared), 0);
  EXPECT_EQ(*ask(2, What::kShared), 0);
  auto waiting = ask(3, What::kExclusive, true);
  EXPECT_EQ(*ask(1, What::kExclusive), EWOULDBLOCK) << "flock(2): not atomic";
  EXPECT_EQ(*ask(2, What::kUnlock), 0);
  EXPECT_EQ(*waiting, 0);
}

}  // namespace
}  // namespace krg
