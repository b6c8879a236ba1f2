// Operations on ranges, contents and whole sets. SPDX-License-Identifier: GPL-2.0-or-later
#include <map>
#include <set>

#include "testing/kddm_fixture.h"

namespace krg {
namespace {

using testing::kSet;

class KddmOperationsTest : public testing::KddmFixture {
 protected:
  uint64_t sent_by_all() const {
    uint64_t sent = 0;
    for (const auto& kddm : kddms_) sent += kddm->traffic().sent;
    return sent;
  }
  static std::string content(uint64_t number) {
    return {reinterpret_cast<const char*>(&number), sizeof number};
  }
};

TEST_F(KddmOperationsTest, TryTakesOnlyWhatIsAtHand) {
  make(2, 8);
  const ObjectId object{3};
  EXPECT_EQ(kddms_[1]->try_get(kSet, object).error().errno_or(0), EAGAIN);
  add(0, object, 7);
  EXPECT_EQ(kddms_[1]->try_get(kSet, object).error().errno_or(0), EAGAIN);
  auto mine = kddms_[0]->try_grab(kSet, object);
  ASSERT_TRUE(mine);
  EXPECT_EQ(number_in(*mine), 7u);
  EXPECT_EQ(kddms_[0]->try_get(kSet, object).error().errno_or(0), EAGAIN) << "a writer has it";
  kddms_[0]->put(kSet, object);
  add(1, object, 0);
  EXPECT_EQ(kddms_[0]->try_grab(kSet, object).error().errno_or(0), EAGAIN) << "there is a copy";
  for (unsigned node = 0; node < 2; ++node) {
    auto read = kddms_[node]->try_get(kSet, object);
    ASSERT_TRUE(read);
    EXPECT_EQ(number_in(*read), 7u);
    kddms_[node]->put(kSet, object);
  }
  EXPECT_EQ(kddms_[0]->try_get(SetId{99}, object).error().errno_or(0), EBADF);
}

TEST_F(KddmOperationsTest, WhatANodeTellsItselfDoesNotTravel) {
  make(2, [](unsigned) { return KddmSetOptions{.object_bytes = 8, .home = NodeId{0}}; });
  const ObjectId object{3};
  add(1, object, 7);
  run_some(100);
  const uint64_t before = sent_by_all();
  EXPECT_EQ(*try_add(0, object, 0), 7u);
  EXPECT_EQ(sent_by_all() - before, 2u) << "the manager asks the owner, which answers";
}

TEST_F(KddmOperationsTest, ARangeTravelsInFewMessages) {
  constexpr uint64_t kCount = 256;
  make(4, [](unsigned) { return KddmSetOptions{.object_bytes = 256, .objects_per_manager = 64}; });
  for (uint64_t o = 0; o < kCount; ++o) add(2, ObjectId{o}, o);
  run_some(100);
  const uint64_t before = sent_by_all();
  std::map<uint64_t, uint64_t> seen;
  kddms_[1]->get_range(kSet, ObjectId{0}, kCount, Kddm::Touch::kNoFirstTouch,
                       [&](ObjectId object, Result<std::span<std::byte>> bytes) {
                         ASSERT_TRUE(bytes);
                         seen[object.value] = number_in(*bytes);
                         kddms_[1]->put(kSet, object);
                       });
  run_until([&] { return seen.size() == kCount; });
  for (uint64_t o = 0; o < kCount; ++o) EXPECT_EQ(seen[o], o);
  // A request to each manager, one from each manager on to the owner, and its answers.
  EXPECT_LE(sent_by_all() - before, 12u);
  const uint64_t before_grab = sent_by_all();
  uint64_t granted = 0;
  kddms_[3]->grab_range(kSet, ObjectId{0}, kCount, Kddm::Touch::kNoFirstTouch,
                        [&](ObjectId object, Result<std::span<std::byte>> bytes) {
                          ASSERT_TRUE(bytes);
                          ++granted;
                          kddms_[3]->put(kSet, object);
                        });
  run_until([&] { return granted == kCount; });
  EXPECT_LE(sent_by_all() - before_grab, 30u) << "invalidations and acks go together, too";
}

TEST_F(KddmOperationsTest, APrefetchedRangeIsThereUnpinned) {
  constexpr uint64_t kCount = 256;
  make(4, [](unsigned) { return KddmSetOptions{.object_bytes = 256, .objects_per_manager = 64}; });
  for (uint64_t o = 0; o < kCount; ++o) add(2, ObjectId{o}, o);
  run_some(100);
  const uint64_t before = sent_by_all();
  kddms_[1]->prefetch(kSet, ObjectId{0}, kCount + 1);  // the last one has never been touched
  run_until([&] { return kddms_[1]->statistics(kSet).objects_here == kCount + 1; });
  EXPECT_LE(sent_by_all() - before, 16u);
  for (uint64_t o = 0; o <= kCount; ++o) {
    auto bytes = kddms_[1]->try_get(kSet, ObjectId{o});
    ASSERT_TRUE(bytes);
    EXPECT_EQ(number_in(*bytes), o == kCount ? 0 : o);
    kddms_[1]->put(kSet, ObjectId{o});
  }
  for (uint64_t o = 0; o < kCount; ++o)
    EXPECT_EQ(add(3, ObjectId{o}, 1), o + 1) << "nobody holds it";
  EXPECT_EQ(kddms_[1]->try_get(kSet, ObjectId{5}).error().errno_or(0), EAGAIN);
}

TEST_F(KddmOperationsTest, SetReplacesTheContentAlsoOfALostObject) {
  make(4, 8);
  const ObjectId object{1};
  EXPECT_EQ(outcome_of([&](auto done) { kddms_[2]->set(kSet, object, content(5), done); }), 0);
  EXPECT_EQ(add(0, object, 0), 5u);
  EXPECT_EQ(outcome_of([&](auto done) { kddms_[2]->set(kSet, object, content(6), done); }), 0);
  EXPECT_EQ(outcome_of([&](auto done) { kddms_[2]->set(kSet, object, "short", done); }), EINVAL);
  run_some(50);
  kill(2);
  EXPECT_FALSE(try_add(0, object, 0));
  EXPECT_EQ(outcome_of([&](auto done) { kddms_[1]->set(kSet, object, content(8), done); }), 0);
  EXPECT_EQ(add(3, object, 0), 8u);
}

class Store : public IoLinker {
 public:
  void first_touch(ObjectId object, std::span<std::byte> bytes,
                   std::function<void(Status)> done) override {
    if (auto kept = values.find(object.value); kept != values.end())
      std::memcpy(bytes.data(), &kept->second, sizeof kept->second);
    done({});
  }
  void sync(ObjectId object, std::span<const std::byte> bytes,
            std::function<void(Status)> done) override {
    if (fails) return done(errno_error("store", ENOSPC));
    std::memcpy(&values[object.value], bytes.data(), sizeof(uint64_t));
    done({});
  }
  void removed(ObjectId object) override { values.erase(object.value); }
  std::map<uint64_t, uint64_t> values;
  bool fails = false;
};

TEST_F(KddmOperationsTest, SyncWritesTheNewestContentBackWhereItIs) {
  std::vector<std::shared_ptr<Store>> stores;
  make(3, [&](unsigned) {
    return KddmSetOptions{.object_bytes = 8,
                          .linker = stores.emplace_back(std::make_shared<Store>())};
  });
  const ObjectId object{4};
  auto sync = [&](unsigned node) {
    return outcome_of([&](auto done) { kddms_[node]->sync(kSet, object, done); });
  };
  EXPECT_EQ(sync(0), ENOENT);
  add(0, object, 1);
  add(2, object, 10);
  add(1, object, 0);
  EXPECT_EQ(sync(0), 0);
  EXPECT_EQ(stores[2]->values, (std::map<uint64_t, uint64_t>{{4, 11}})) << "node 2 owns it";
  EXPECT_TRUE(stores[0]->values.empty() && stores[1]->values.empty());
  stores[2]->fails = true;
  EXPECT_EQ(sync(1), ENOSPC);
  EXPECT_EQ(add(1, object, 1), 12u) << "a failed write back leaves no pin";
  EXPECT_EQ(sync(0), 0);
  EXPECT_EQ(stores[1]->values[4], 12u);
  remove(0, object);
  EXPECT_TRUE(stores[1]->values.empty()) << "the owner's store hears of removals";
}

TEST_F(KddmOperationsTest, ADestroyedSetIsClosedEverywhere) {
  make(4, 8);
  const SetId set{9};
  for (const auto& kddm : kddms_)
    ASSERT_TRUE(kddm->open_set(set, {.object_bytes = 16, .objects_per_manager = 8}));
  const auto sets = kddms_[3]->sets();
  ASSERT_EQ(sets.size(), 2u);
  EXPECT_EQ(sets[1].id, set);
  EXPECT_EQ(sets[1].object_bytes, 16u);
  EXPECT_EQ(sets[1].objects_per_manager, 8u);
  bool destroyed = false;
  int cancelled = 0;
  kddms_[3]->grab(set, ObjectId{0}, Kddm::Touch::kFirstTouch, [&](auto) {});
  run_some(50);
  kddms_[2]->grab(set, ObjectId{0}, Kddm::Touch::kFirstTouch,
                  [&](auto bytes) { cancelled = bytes ? 1 : bytes.error().errno_or(2); });
  kddms_[0]->destroy_set(set, [&] { destroyed = true; });
  run_until([&] { return destroyed; });
  EXPECT_EQ(cancelled, ECANCELED);
  for (const auto& kddm : kddms_) EXPECT_EQ(kddm->sets().size(), 1u);
  EXPECT_EQ(kddms_[2]->try_get(set, ObjectId{0}).error().errno_or(0), EBADF);
  kddms_[3]->put(set, ObjectId{0});  // a pin that ended with its set
}

TEST_F(KddmOperationsTest, ASetWithAHomeIsManagedThere) {
  make(3, [](unsigned) { return KddmSetOptions{.object_bytes = 8, .home = NodeId{2}}; });
  for (uint64_t o = 0; o < 20; ++o) add(2, ObjectId{o}, 1);
  EXPECT_EQ(kddms_[2]->statistics(kSet).local_hits, 0u) << "made, not found";
  EXPECT_EQ(kddms_[2]->statistics(kSet).objects_owned, 20u);
  EXPECT_EQ(kddms_[0]->traffic().sent + kddms_[1]->traffic().sent, 0u);
  run_some(50);
  kill(2);
  EXPECT_EQ(try_add(0, ObjectId{3}, 0).error().errno_or(0), EOWNERDEAD);
  EXPECT_EQ(add(0, ObjectId{30}, 1), 1u);
}

TEST_F(KddmOperationsTest, FlushOfASetLeavesNothingHere) {
  make(3, 8);
  for (uint64_t o = 0; o < 20; ++o) add(o % 2, ObjectId{o}, o + 1);
  for (uint64_t o = 0; o < 20; ++o) add(0, ObjectId{o}, 0);
  kddms_[0]->flush(kSet, NodeId{2});
  run_until([&] { return kddms_[0]->statistics(kSet).objects_here == 0; });
  std::set<uint64_t> there;
  kddms_[2]->for_each(kSet, [&](ObjectId object, std::span<const std::byte> bytes) {
    EXPECT_EQ(number_in(bytes), object.value + 1);
    there.insert(object.value);
  });
  EXPECT_EQ(there.size(), 10u) << "node 1 keeps its own";
}

TEST_F(KddmOperationsTest, MessagesForARetiredSetAreDropped) {
  make(2, 8);
  for (uint64_t o = 0; o < 10; ++o) add(0, ObjectId{o}, 1);
  kddms_[1]->retire_set(kSet);
  for (uint64_t o = 0; o < 2 * kMaxEarlyMessages; ++o)
    kddms_[0]->get(kSet, ObjectId{o}, Kddm::Touch::kFirstTouch, [](auto) {});
  run_some(2000);
  EXPECT_EQ(kddms_[1]->memory_used(), 0u);
}

}  // namespace
}  // namespace krg
