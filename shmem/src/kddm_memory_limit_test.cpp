// Objects move to nodes with room. SPDX-License-Identifier: GPL-2.0-or-later
#include <random>

#include "testing/kddm_fixture.h"

namespace krg {
namespace {

using testing::kSet;
constexpr size_t kBytes = 4096;

class KddmMemoryLimitTest : public testing::KddmFixture {
 protected:
  void limit(unsigned node, size_t objects) { kddms_[node]->set_memory_limit(objects * kBytes); }
  uint64_t objects_at(unsigned node) const { return kddms_[node]->statistics(kSet).objects_here; }
};

TEST_F(KddmMemoryLimitTest, OneNodeUsesTheMemoryOfAll) {
  make(4, kBytes);
  for (unsigned n = 0; n < 4; ++n) limit(n, 64);
  constexpr uint64_t kObjects = 200;
  for (uint64_t o = 0; o < kObjects; ++o) {
    add(0, ObjectId{o}, o + 1);
    EXPECT_LT(objects_at(0), 80u) << "the limit holds while it is filled";
  }
  run_until([&] { return objects_at(0) <= 64; });
  for (unsigned n = 1; n < 4; ++n) EXPECT_LE(objects_at(n), 64u);
  const KddmStatistics filled = kddms_[0]->statistics(kSet);
  EXPECT_GE(filled.evictions, kObjects - 64);
  EXPECT_EQ(filled.refetches, 0u);
  for (uint64_t o = 0; o < kObjects; ++o) EXPECT_EQ(add(0, ObjectId{o}, 1), o + 2);
  run_until([&] { return objects_at(0) <= 64; });
  EXPECT_GE(kddms_[0]->statistics(kSet).refetches, kObjects - 64);
}

TEST_F(KddmMemoryLimitTest, CopiesAreDroppedBeforeAnythingMoves) {
  make(3, kBytes);
  for (uint64_t o = 0; o < 40; ++o) add(1, ObjectId{o}, o);
  for (uint64_t o = 40; o < 50; ++o) add(0, ObjectId{o}, o);
  for (uint64_t o = 0; o < 40; ++o) add(0, ObjectId{o}, 0);
  ASSERT_EQ(objects_at(0), 50u);
  for (unsigned n = 1; n < 3; ++n) limit(n, 100);
  limit(0, 20);
  run_until([&] { return objects_at(0) <= 20; });
  const KddmStatistics here = kddms_[0]->statistics(kSet);
  EXPECT_EQ(here.copies_dropped, 30u);
  EXPECT_EQ(here.evictions, 0u);
  EXPECT_EQ(here.objects_owned, 10u);
}

TEST_F(KddmMemoryLimitTest, WhatWasUsedLastStays) {
  make(2, kBytes);
  for (uint64_t o = 0; o < 30; ++o) add(0, ObjectId{o}, 1);
  for (uint64_t o = 0; o < 5; ++o) add(0, ObjectId{o}, 1);
  limit(1, 100);
  limit(0, 10);
  run_until([&] { return objects_at(0) <= 10; });
  for (uint64_t o = 0; o < 5; ++o) EXPECT_FALSE(kddms_[0]->find(kSet, ObjectId{o}).empty());
}

TEST_F(KddmMemoryLimitTest, WhatIsPinnedOrFindsNoRoomStays) {
  make(2, kBytes);
  for (uint64_t o = 0; o < 20; ++o)
    kddms_[0]->grab(kSet, ObjectId{o}, Kddm::Touch::kFirstTouch,
                    [](auto bytes) { ASSERT_TRUE(bytes); });
  run_until([&] { return objects_at(0) == 20; });
  limit(1, 12);
  limit(0, 4);
  run_some(200);
  EXPECT_EQ(objects_at(0), 20u) << "all are pinned";
  for (uint64_t o = 0; o < 20; ++o) kddms_[0]->put(kSet, ObjectId{o});
  add(0, ObjectId{100}, 1);  // growth makes it look again
  run_until([&] { return objects_at(1) == 12; });
  run_some(200);
  EXPECT_EQ(objects_at(0), 9u) << "the other node is full";
  for (uint64_t o = 0; o < 20; ++o) EXPECT_EQ(add(0, ObjectId{o}, 1), 1u);
}

TEST_F(KddmMemoryLimitTest, NothingIsLostUnderPressureFromAllSides) {
  make(4, 64);
  for (unsigned n = 0; n < 4; ++n) kddms_[n]->set_memory_limit(20 * 64);
  std::mt19937 random(11);
  unsigned done = 0;
  constexpr unsigned kAdditions = 4000, kObjects = 60;
  for (unsigned i = 0; i < kAdditions; ++i) {
    const unsigned node = static_cast<unsigned>(random() % 4);
    const ObjectId object{random() % kObjects};
    kddms_[node]->grab(kSet, object, Kddm::Touch::kFirstTouch, [&, node, object](auto bytes) {
      ASSERT_TRUE(bytes);
      set_number(*bytes, number_in(*bytes) + 1);
      kddms_[node]->put(kSet, object);
      ++done;
    });
    if (i % 16 == 0) run_some(2);
  }
  run_until([&] { return done == kAdditions; });
  uint64_t sum = 0, evictions = 0;
  for (uint64_t o = 0; o < kObjects; ++o) sum += add(o % 4, ObjectId{o}, 0);
  EXPECT_EQ(sum, kAdditions);
  for (unsigned n = 0; n < 4; ++n) evictions += kddms_[n]->statistics(kSet).evictions;
  EXPECT_GT(evictions, 0u);
}

}  // namespace
}  // namespace krg
