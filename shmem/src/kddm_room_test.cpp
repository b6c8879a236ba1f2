// Bytes come for which there is no memory yet. SPDX-License-Identifier: GPL-2.0-or-later
#include <random>

#include "scarce_memory.h"
#include "testing/kddm_fixture.h"

namespace krg {
namespace {

using testing::kSet;

// Has room when it is said to, or else by chance.
class LittleMemory : public ScarceMemory {
 public:
  bool make_room(ObjectId, size_t) override {
    const bool is_room = none_ ? false : one_in_ == 0 || random_() % one_in_ == 0;
    refused_ += !is_room;
    return is_room;
  }
  std::span<std::byte> place(ObjectId object) override { return memory_->place(object); }
  void protect(ObjectId object) override { memory_->protect(object); }
  void release(ObjectId object) override { memory_->release(object); }

  bool none_ = false;
  unsigned one_in_ = 0;
  unsigned refused_ = 0;
  std::mt19937 random_{1};

 private:
  std::unique_ptr<ObjectMemory> memory_ = make_heap_memory(64);
};

class KddmRoomTest : public testing::KddmFixture {
 protected:
  void make_scarce(unsigned nodes, uint64_t seed = 42) {
    memories_.clear();
    for (unsigned n = 0; n < nodes; ++n) memories_.push_back(std::make_shared<LittleMemory>());
    make(
        nodes,
        [this](unsigned n) { return KddmSetOptions{.object_bytes = 64, .memory = memories_[n]}; },
        seed);
  }
  std::vector<std::shared_ptr<LittleMemory>> memories_;
};

TEST_F(KddmRoomTest, WhatCameWaitsForMemoryAndTheLoopGoesOn) {
  make_scarce(3);
  for (uint64_t object = 0; object < 8; ++object) add(0, ObjectId{object}, 5 + object);
  memories_[1]->none_ = true;
  std::vector<uint64_t> got;
  for (uint64_t object = 0; object < 8; ++object)
    kddms_[1]->get(kSet, ObjectId{object}, Kddm::Touch::kFirstTouch,
                   [&, object](Result<std::span<std::byte>> bytes) {
                     if (bytes) got.push_back(number_in(*bytes) - object);
                     kddms_[1]->put(kSet, ObjectId{object});
                   });
  unsigned pings = 0;
  const EventLoop::Timer pinging = loop_->every(std::chrono::milliseconds(1), [&] { ++pings; });
  run_until([&] { return pings >= 20 && memories_[1]->refused_ >= 5; });
  EXPECT_TRUE(got.empty());
  memories_[1]->none_ = false;
  run_until([&] { return got.size() == 8; });
  EXPECT_EQ(got, std::vector<uint64_t>(8, 5));
}

// Whatever waits, and when: nothing overtakes anything, a recovery neither.
TEST_F(KddmRoomTest, NothingIsLostOrOvertakenMeanwhileNotEvenWhenANodeDies) {
  constexpr unsigned kNodes = 4, kObjects = 6;
  for (unsigned seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(seed);
    make_scarce(kNodes, seed);
    std::mt19937 random(seed);
    std::vector<uint64_t> expected(kObjects);
    unsigned under_way = 0;
    for (unsigned n = 0; n < kNodes; ++n) memories_[n]->one_in_ = 2 + n;
    for (unsigned i = 0; i < 120; ++i) {
      const unsigned node = static_cast<unsigned>(random() % (kNodes - 1));
      const ObjectId object{random() % kObjects};
      ++under_way;
      kddms_[node]->grab(kSet, object, Kddm::Touch::kFirstTouch,
                         [&, node, object](Result<std::span<std::byte>> bytes) {
                           --under_way;
                           ASSERT_TRUE(bytes);
                           set_number(*bytes, number_in(*bytes) + 1);
                           ++expected[object.value];
                           kddms_[node]->put(kSet, object);
                         });
      // The last node only manages objects: none is lost with it.
      if (i == 60) {
        run_some(static_cast<unsigned>(random() % 40));
        kill(kNodes - 1);
      }
    }
    run_until([&] { return under_way == 0; });
    for (unsigned n = 0; n + 1 < kNodes; ++n)
      for (uint64_t o = 0; o < kObjects; ++o) EXPECT_EQ(add(n, ObjectId{o}, 0), expected[o]);
    EXPECT_GT(memories_[0]->refused_ + memories_[1]->refused_ + memories_[2]->refused_, 0u);
    if (HasFailure()) return;
    unmake();
  }
}

}  // namespace
}  // namespace krg
