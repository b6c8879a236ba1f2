// SPDX-License-Identifier: GPL-2.0-or-later
#include "record_lock_table.h"

#include <gtest/gtest.h>

#include <array>
#include <random>

namespace krg {
namespace {

constexpr uint64_t kFile = 7;
using Owner = RecordLockTable::Owner;

Owner process(uint64_t number, uint16_t node = 0) {
  return {NodeId{node}, number, 0};
}

class RecordLockTableTest : public ::testing::Test {
 protected:
  // 0, an error, or nothing while it waits.
  using Answer = std::shared_ptr<std::optional<int>>;
  Answer ask(const Owner& owner, int type, int64_t start, int64_t length, bool waits = false) {
    auto answer = std::make_shared<std::optional<int>>();
    const RecordLock lock{start, length, type, static_cast<pid_t>(owner.process)};
    table.lock(kFile, {owner, lock, waits, owner.process, owner.description == 0},
               [answer](const Status& had) { *answer = had ? 0 : had.error().errno_or(EIO); });
    return answer;
  }
  RecordLock found(const Owner& owner, int type, int64_t start, int64_t length) {
    return table.blocking(kFile, owner, {start, length, type, 0});
  }
  RecordLockTable table;
};

TEST_F(RecordLockTableTest, OneWriterOrManyReadersOfEachByte) {
  EXPECT_EQ(*ask(process(1), F_RDLCK, 0, 10), 0);
  EXPECT_EQ(*ask(process(2), F_RDLCK, 5, 10), 0);
  EXPECT_EQ(*ask(process(3), F_WRLCK, 14, 1), EAGAIN);
  EXPECT_EQ(*ask(process(3), F_WRLCK, 15, 0), 0);
  EXPECT_EQ(*ask(process(1), F_WRLCK, 0, 5), 0) << "its own lock is none to it";
  EXPECT_EQ(*ask(process(1, 1), F_RDLCK, 4, 1), EAGAIN) << "the same number on another node";
  EXPECT_EQ(*ask({NodeId{0}, 1, 99}, F_RDLCK, 4, 1), EAGAIN) << "a description of the process";
  EXPECT_EQ(*ask(process(1), F_RDLCK, -1, 1), EINVAL);
  EXPECT_EQ(*ask(process(1), F_RDLCK, 3, -4), EINVAL);
}

TEST_F(RecordLockTableTest, TellsWhoHasIt) {
  EXPECT_EQ(found(process(2), F_WRLCK, 0, 0).type, F_UNLCK);
  EXPECT_EQ(*ask(process(1), F_WRLCK, 100, -50), 0);
  const RecordLock lock = found(process(2), F_RDLCK, 0, 51);
  EXPECT_EQ(lock.type, F_WRLCK);
  EXPECT_EQ(lock.start, 50);
  EXPECT_EQ(lock.length, 50);
  EXPECT_EQ(lock.pid, 1);
  EXPECT_EQ(found(process(2), F_RDLCK, 0, 50).type, F_UNLCK);
  EXPECT_EQ(found(process(1), F_RDLCK, 0, 0).type, F_UNLCK);
  EXPECT_EQ(*ask(process(1), F_WRLCK, 200, 0), 0);
  EXPECT_EQ(found(process(2), F_RDLCK, 1000, 1).length, 0) << "to the end";
}

TEST_F(RecordLockTableTest, WaitersAreServedInOrderCancelledAndForgotten) {
  EXPECT_EQ(*ask(process(1), F_WRLCK, 0, 10), 0);
  const Answer second = ask(process(2, 1), F_WRLCK, 0, 1, true),
               third = ask(process(3), F_RDLCK, 9, 1, true),
               fourth = ask(process(4, 1), F_RDLCK, 9, 1, true);
  EXPECT_EQ(*ask(process(1), F_UNLCK, 5, 0), 0);
  EXPECT_EQ(*second, std::nullopt);
  EXPECT_EQ(*third, 0);
  EXPECT_EQ(*fourth, 0);
  table.cancel(NodeId{0}, 2);
  EXPECT_EQ(*second, std::nullopt) << "of another node";
  table.cancel(NodeId{1}, 2);
  EXPECT_EQ(*second, EINTR);
  const Answer fifth = ask(process(5), F_WRLCK, 0, 0, true),
               sixth = ask(process(6, 1), F_RDLCK, 0, 1, true);
  table.forget_node(NodeId{1});
  EXPECT_EQ(*sixth, std::nullopt);
  table.release(kFile, process(3));
  EXPECT_EQ(*fifth, std::nullopt);
  table.release(kFile, process(1));
  EXPECT_EQ(*fifth, 0);
  table.release(kFile, process(5));
  EXPECT_FALSE(table.is_locked(kFile));
}

TEST_F(RecordLockTableTest, AWaitForItselfIsRefused) {
  for (uint64_t owner : {1, 2, 3}) EXPECT_EQ(*ask(process(owner), F_WRLCK, owner, 1), 0);
  const auto first = ask(process(1), F_WRLCK, 2, 1, true);
  const auto second = ask(process(2), F_RDLCK, 3, 1, true);
  EXPECT_EQ(*ask(process(3), F_RDLCK, 1, 1, true), EDEADLK) << "through the second and the first";
  EXPECT_EQ(*ask(process(3), F_RDLCK, 1, 1), EAGAIN);
  const Owner description{NodeId{0}, 3, 7};
  EXPECT_EQ(*ask(description, F_RDLCK, 1, 1, true), std::nullopt)
      << "descriptions are not looked at";
  table.release(kFile, process(3));
  EXPECT_EQ(*second, 0);
  EXPECT_EQ(*first, std::nullopt);
  table.release(kFile, process(2));
  EXPECT_EQ(*first, 0);
}

// Against a table of bytes.
TEST_F(RecordLockTableTest, RangesAreSplitAndJoinedAsBytesAre) {
  constexpr int kBytes = 24, kOwners = 3, kSteps = 20000;
  int bytes[kOwners][kBytes] = {};
  std::mt19937 random(1);
  const auto up_to = [&](int most) {
    return static_cast<int>(random() % static_cast<unsigned>(most));
  };
  for (auto& owner : bytes)
    for (int& byte : owner) byte = F_UNLCK;
  for (int step = 0; step < kSteps; ++step) {
    const int owner = up_to(kOwners), start = up_to(kBytes), length = 1 + up_to(kBytes - start);
    const int type = std::array{F_RDLCK, F_WRLCK, F_UNLCK}[static_cast<size_t>(up_to(3))];
    bool may = true;
    for (int other = 0; other < kOwners; ++other)
      for (int at = start; at < start + length; ++at)
        may &= other == owner || type == F_UNLCK || bytes[other][at] == F_UNLCK ||
               (type == F_RDLCK && bytes[other][at] == F_RDLCK);
    ASSERT_EQ(*ask(process(static_cast<uint64_t>(owner)), type, start, length), may ? 0 : EAGAIN)
        << "step " << step;
    if (!may) continue;
    for (int at = start; at < start + length; ++at) bytes[owner][at] = type;
  }
  for (uint64_t owner = 0; owner < kOwners; ++owner) table.release(kFile, process(owner));
  EXPECT_FALSE(table.is_locked(kFile));
}

}  // namespace
}  // namespace krg
