// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/shmem/kddm.h"

#include <random>

#include "testing/kddm_fixture.h"

namespace krg {
namespace {

using std::chrono::milliseconds;
using testing::kSet;

class KddmTest : public testing::KddmFixture {};

TEST_F(KddmTest, EveryNodeSeesWhatAnyNodeWrote) {
  make(4, 4096);
  for (uint64_t object = 0; object < 16; ++object) {
    uint64_t expected = 0;
    for (unsigned round = 0; round < 3; ++round)
      for (unsigned node = 0; node < 4; ++node) {
        EXPECT_EQ(add(node, ObjectId{object}, node + 1), expected += node + 1);
        EXPECT_EQ(add((node + 2) % 4, ObjectId{object}, 0), expected);
      }
  }
}

TEST_F(KddmTest, CountsHitsAndTransfers) {
  make(2, 64);
  const ObjectId object{5};
  add(0, object, 1);
  add(1, object, 0);
  const KddmStatistics before = kddms_[1]->statistics(kSet);
  add(1, object, 0);
  const KddmStatistics after = kddms_[1]->statistics(kSet);
  EXPECT_EQ(after.local_hits, before.local_hits + 1) << "the copy is still valid";
  EXPECT_EQ(kddms_[0]->statistics(kSet).copies_sent, 1u);
  EXPECT_EQ(kddms_[0]->statistics(kSet).bytes_sent, 64u);
  add(0, object, 1);
  run_until([&] { return kddms_[1]->statistics(kSet).invalidations_received == 1; });
  EXPECT_TRUE(kddms_[1]->find(kSet, object).empty());
  EXPECT_FALSE(kddms_[0]->find(kSet, object).empty());
}

class CountingLinker : public IoLinker {
 public:
  void first_touch(ObjectId object, std::span<std::byte> bytes,
                   std::function<void(Status)> done) override {
    uint64_t value = object.value * 100;
    std::memcpy(bytes.data(), &value, sizeof value);
    done({});
  }
};

TEST_F(KddmTest, TheIoLinkerMakesObjectsOnFirstTouch) {
  make(3, 8, std::make_shared<CountingLinker>());
  for (unsigned object = 1; object < 10; ++object)
    EXPECT_EQ(add(object % 3, ObjectId{object}, 0), object * 100);
}

class FailingLinker : public IoLinker {
 public:
  void first_touch(ObjectId, std::span<std::byte>, std::function<void(Status)> done) override {
    done(errno_error("store", EIO));
  }
};

TEST_F(KddmTest, AnObjectThatCannotBeMadeIsAnErrorOnEveryNode) {
  make(3, 8, std::make_shared<FailingLinker>());
  for (unsigned node = 0; node < 3; ++node) {
    int answer = 0;
    auto note = [&](Result<std::span<std::byte>> bytes) {
      answer = bytes ? -1 : bytes.error().errno_or(-2);
    };
    kddms_[node]->get(kSet, ObjectId{3}, Kddm::Touch::kFirstTouch, note);
    run_until([&] { return answer != 0; });
    EXPECT_EQ(answer, EOWNERDEAD);
    answer = 0;
    kddms_[node]->grab(kSet, ObjectId{3}, Kddm::Touch::kFirstTouch, note);
    run_until([&] { return answer != 0; });
    EXPECT_EQ(answer, EOWNERDEAD);
  }
}

// What a node's memory is asked for, and whether objects may be seen and written in it.
class WatchedMemory : public ObjectMemory {
 public:
  explicit WatchedMemory(size_t object_bytes) : heap_(make_heap_memory(object_bytes)) {}
  std::span<std::byte> place(ObjectId object) override {
    visible = writable = true;
    return heap_->place(object);
  }
  void protect(ObjectId) override { writable = false; }
  void release(ObjectId object) override {
    visible = writable = false;
    heap_->release(object);
  }
  bool visible = false, writable = false;

 private:
  std::unique_ptr<ObjectMemory> heap_;
};

TEST_F(KddmTest, MemoryIsProtectedBeforeItIsSharedAndReleasedBeforeAnotherNodeWrites) {
  std::vector<std::shared_ptr<WatchedMemory>> memories;
  make(3, [&](unsigned) {
    return KddmSetOptions{.object_bytes = 64,
                          .linker = std::make_shared<CountingLinker>(),
                          .memory = memories.emplace_back(std::make_shared<WatchedMemory>(64))};
  });
  const ObjectId object{4};
  EXPECT_EQ(add(0, object, 1), 401u) << "a first touch is made in the memory";
  EXPECT_TRUE(memories[0]->writable);
  EXPECT_EQ(add(1, object, 0), 401u);
  EXPECT_TRUE(memories[0]->visible);
  EXPECT_FALSE(memories[0]->writable) << "there is a copy";
  bool granted = false;
  kddms_[2]->grab(kSet, object, Kddm::Touch::kFirstTouch, [&](auto bytes) {
    ASSERT_TRUE(bytes);
    EXPECT_FALSE(memories[0]->visible || memories[1]->visible) << "somebody else may write";
    EXPECT_TRUE(memories[2]->visible);
    granted = true;
  });
  run_until([&] { return granted; });
}

TEST_F(KddmTest, NoFirstTouchSaysThatThereIsNone) {
  make(3, 8);
  for (unsigned node = 0; node < 3; ++node) {
    int answer = 0;
    kddms_[node]->get(kSet, ObjectId{3}, Kddm::Touch::kNoFirstTouch,
                      [&](auto bytes) { answer = bytes ? -1 : bytes.error().errno_or(-2); });
    run_until([&] { return answer != 0; });
    EXPECT_EQ(answer, ENOENT);
  }
}

TEST_F(KddmTest, RemovedObjectsStartAnew) {
  make(3, 8);
  for (unsigned node = 0; node < 3; ++node) {
    const ObjectId object{11};
    EXPECT_EQ(add(node, object, 9), 9u);
    add((node + 1) % 3, object, 0);
    bool gone = false;
    kddms_[(node + 2) % 3]->remove(kSet, object, [&] { gone = true; });
    run_until([&] { return gone; });
    EXPECT_EQ(add(node, object, 0), 0u);
    gone = false;
    kddms_[node]->remove(kSet, object, [&] { gone = true; });
    run_until([&] { return gone; });
  }
}

TEST_F(KddmTest, FlushMovesTheObjectIntoAnotherNodesMemory) {
  make(3, 4096);
  const ObjectId object{2};
  add(0, object, 5);
  kddms_[0]->flush(kSet, object, NodeId{2});
  run_until([&] { return !kddms_[2]->find(kSet, object).empty(); });
  EXPECT_TRUE(kddms_[0]->find(kSet, object).empty());
  EXPECT_EQ(add(1, object, 1), 6u);
}

TEST_F(KddmTest, MessagesForASetWaitUntilItIsOpened) {
  make(2, 8);
  const SetId late{8};
  ASSERT_TRUE(kddms_[0]->open_set(late, {.object_bytes = 8}));
  unsigned granted = 0;
  for (unsigned object = 0; object < 8; ++object)
    kddms_[0]->grab(late, ObjectId{object}, Kddm::Touch::kFirstTouch, [&](auto bytes) {
      EXPECT_TRUE(bytes);
      ++granted;
    });
  for (int i = 0; i < 50; ++i) loop_->run_once(milliseconds(0));
  EXPECT_LT(granted, 8u) << "some of them are managed by the other node";
  ASSERT_TRUE(kddms_[1]->open_set(late, {.object_bytes = 8}));
  run_until([&] { return granted == 8; });
}

TEST_F(KddmTest, WhatComesForARetiredSetIsDropped) {
  make(2, 8, nullptr);
  kddms_[1]->retire_set(kSet);
  // About half of them are managed by the other node: more than would be kept for a set to come.
  unsigned ended = 0;
  for (uint64_t object = 0; object < 4 * kMaxEarlyMessages; ++object)
    kddms_[0]->get(kSet, ObjectId{object}, Kddm::Touch::kFirstTouch, [&](auto) { ++ended; });
  run_some(4 * kMaxEarlyMessages);
  kddms_[0]->retire_set(kSet);
  run_until([&] { return ended == 4 * kMaxEarlyMessages; });
}

TEST_F(KddmTest, RefusesSizesOutsideOfItsLimits) {
  make(1, 8);
  EXPECT_FALSE(kddms_[0]->open_set(SetId{9}, {.object_bytes = 4}));
  EXPECT_FALSE(kddms_[0]->open_set(SetId{9}, {.object_bytes = kMaxObjectBytes + 1}));
  EXPECT_FALSE(kddms_[0]->open_set(kSet, {.object_bytes = 8})) << "it is open already";
}

TEST_F(KddmTest, ConcurrentAdditionsAreNeverLost) {
  make(5, 8);
  std::mt19937 random(7);
  constexpr unsigned kAdditions = 2000;
  unsigned done = 0;
  for (unsigned i = 0; i < kAdditions; ++i) {
    const unsigned node = static_cast<unsigned>(random() % 5);
    const ObjectId object{random() % 3};
    kddms_[node]->grab(kSet, object, Kddm::Touch::kFirstTouch, [&, node, object](auto bytes) {
      ASSERT_TRUE(bytes);
      uint64_t value;
      std::memcpy(&value, bytes->data(), sizeof value);
      ++value;
      std::memcpy(bytes->data(), &value, sizeof value);
      kddms_[node]->put(kSet, object);
      ++done;
    });
  }
  run_until([&] { return done == kAdditions; });
  EXPECT_EQ(add(0, ObjectId{0}, 0) + add(1, ObjectId{1}, 0) + add(2, ObjectId{2}, 0), kAdditions);
}

}  // namespace
}  // namespace krg
