// Pins for reading that programs keep (kept_pins.h): what has been read is read again without krgd,
// until somebody waits for it. SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "kept_pins.h"
#include "krg/shmem/client.h"
#include "testing/client_fixture.h"
#include "testing/sequential_consistency.h"

namespace krg {
namespace {

using namespace std::chrono_literals;

using testing::ClientTest;
using testing::error_of;

class ClientKeptTest : public ClientTest {
 protected:
  static constexpr uint64_t kRow = KeptPins::kNeighbours;

  static uint64_t read(const SharedSet& set, uint64_t object) {
    auto pin = set.get({object});
    EXPECT_TRUE(pin) << pin.error().message();
    return pin ? pin->as<uint64_t>() : 0;
  }
  static void write(const SharedSet& set, uint64_t object, uint64_t value) {
    auto pin = set.grab({object});
    ASSERT_TRUE(pin) << pin.error().message();
    pin->as<uint64_t>() = value;
  }
  static uint64_t gets(const SharedSet& set) { return set.statistics()->gets; }
};

TEST_F(ClientKeptTest, WhatWasReadIsReadAgainWithoutKrgdUntilItIsWritten) {
  const SharedSet here = shared(0, "set", 64), there = shared(1, "set", 64);
  for (uint64_t value = 1; value < 20; ++value) {
    write(there, 3, value);
    EXPECT_EQ(read(here, 3), value);
    const uint64_t asked = gets(here);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(read(here, 3), value);
    EXPECT_EQ(here.get_async({3}).get()->as<uint64_t>(), value);
    EXPECT_EQ(here.find({3})->as<uint64_t>(), value);
    EXPECT_EQ(gets(here), asked);
  }
}

TEST_F(ClientKeptTest, NeighboursComeAlong) {
  const SharedSet here = shared(0, "set", 4096), there = shared(1, "set", 4096);
  for (uint64_t i = 0; i < 3 * kRow; ++i) write(there, i, i + 1);
  EXPECT_EQ(read(here, kRow + 2), kRow + 3);
  const uint64_t asked = gets(here);
  for (uint64_t i = kRow; i < 2 * kRow; ++i) EXPECT_EQ(read(here, i), i + 1);
  EXPECT_EQ(gets(here), asked) << "those have come along";
  EXPECT_EQ(read(here, 0), 1u);
  EXPECT_GT(gets(here), asked) << "others have not";
}

TEST_F(ClientKeptTest, NeighboursThatDoNotExistAreNotMade) {
  const SharedSet here = shared(0, "set", 8);
  for (uint64_t i = 0; i < 32; ++i) {
    EXPECT_EQ(read(here, i * kRow + 3), 0u);
    for (unsigned node : {0u, 1u})
      EXPECT_EQ(error_of(shared(node, "set", 8).get({i * kRow + 4}, Touch::kNoFirstTouch)), ENOENT);
  }
}

TEST_F(ClientKeptTest, AWriterWaitsForWhoUsesAKeptPin) {
  const SharedSet here = shared(0, "set", 8), there = shared(1, "set", 8);
  write(there, 0, 7);
  EXPECT_EQ(read(here, 1), 0u);  // brings 0 along
  auto one = here.get({0}), other = here.get({0});
  auto writing = there.grab_async({0});
  EXPECT_EQ(writing.wait_for(50ms), std::future_status::timeout);
  one->put();
  auto late = here.get_async({0});  // behind the writer
  EXPECT_EQ(writing.wait_for(50ms), std::future_status::timeout);
  EXPECT_EQ(other->as<uint64_t>(), 7u);
  other->put();
  writing.get()->as<uint64_t>() = 8;
  EXPECT_EQ(late.get()->as<uint64_t>(), 8u);
}

TEST_F(ClientKeptTest, ProgramsOfOneNodeWriteWhatOthersKeep) {
  const SharedSet one = shared(0, "set", 8), other = shared(0, "set", 8);
  for (uint64_t i = 1; i < 50; ++i) {
    write(i % 2 ? one : other, 5, i);
    EXPECT_EQ(read(one, 5), i);
    EXPECT_EQ(read(other, 5), i);
    EXPECT_EQ(one.try_grab({5})->as<uint64_t>(), i) << "as if nobody kept it";
  }
}

TEST_F(ClientKeptTest, WhatIsKeptEndsWithTheObjectTheSetAndKrgd) {
  const SharedSet here = shared(0, "set", 8), there = shared(1, "set", 8);
  write(there, 2, 5);
  EXPECT_EQ(read(here, 2), 5u);
  ASSERT_TRUE(there.remove({2}));
  EXPECT_EQ(error_of(here.get({2}, Touch::kNoFirstTouch)), ENOENT);
  write(there, 2, 6);
  auto held = here.get({2});
  EXPECT_EQ(read(here, 2), 6u);
  ASSERT_TRUE(there.destroy());
  EXPECT_EQ(error_of(here.get({2})), EIDRM);
  held->put();
  const SharedSet anew = shared(1, "set", 8), mine = shared(0, "set", 8);
  write(anew, 2, 9);
  EXPECT_EQ(read(mine, 2), 9u);
  in_loop([&] { nodes_[0].reset(); });
  EXPECT_EQ(error_of(mine.get({2})), ECONNRESET);
  nodes_.erase(nodes_.begin());
}

TEST_F(ClientKeptTest, SurvivorsGoOnWithWhatTheyKeep) {
  const SharedSet here = shared(0, "set", 8), there = shared(1, "set", 8);
  for (uint64_t i = 0; i < 64; ++i) write(shared(3, "set", 8), i, i + 1);
  for (uint64_t i = 0; i < 64; ++i) EXPECT_EQ(read(here, i) + read(there, i), 2 * (i + 1));
  auto held = here.get({7});
  in_loop([&] { fabric_.kill(NodeId{3}, LoopbackFabric::Death::kNoticed); });
  for (uint64_t i = 0; i < 64; ++i) {
    if (i == 7) continue;
    write(there, i, 100 + i);
    EXPECT_EQ(read(here, i), 100 + i);
  }
  auto writing = there.grab_async({7});
  EXPECT_EQ(writing.wait_for(50ms), std::future_status::timeout);
  held->put();
  EXPECT_EQ(writing.get()->as<uint64_t>(), 8u);
}

TEST_F(ClientKeptTest, TheOldestOfTooManyGo) {
  const SharedSet here = shared(0, "set", 8), there = shared(1, "set", 8);
  write(there, 0, 5);
  for (uint64_t i = 0; i <= kKeptSlots + kRow; ++i) EXPECT_EQ(read(here, i), i == 0 ? 5u : 0u);
  const uint64_t asked = gets(here);
  EXPECT_EQ(read(here, kKeptSlots + kRow), 0u);
  EXPECT_EQ(gets(here), asked);
  EXPECT_EQ(read(here, 0), 5u);
  EXPECT_GT(gets(here), asked);
}

TEST_F(ClientKeptTest, ANodeOverItsMemoryLimitLetsGoOfWhatIsKept) {
  const SharedSet here = shared(0, "set", 4096), there = shared(1, "set", 4096);
  for (uint64_t i = 0; i < 256; ++i) write(there, i, i);
  for (uint64_t i = 0; i < 256; ++i) EXPECT_EQ(read(here, i), i);
  in_loop([&] { nodes_[0]->kddm.set_memory_limit(64 << 10); });
  size_t used = 0;
  for (int i = 0; i < 1000; ++i) {
    in_loop([&] { used = nodes_[0]->kddm.memory_used(); });
    if (used <= 64 << 10) break;
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_LE(used, size_t{64 << 10});
  for (uint64_t i = 0; i < 256; ++i) EXPECT_EQ(read(here, i), i);
}

// Two threads of each program, so that one reads what is taken from the other just then.
TEST_F(ClientKeptTest, AccessesAreSequentiallyConsistent) {
  constexpr unsigned kThreads = 2 * kNodes, kOperations = 600, kObjects = 4;
  using Words = std::array<uint64_t, 8>;
  std::vector<std::vector<kddm::AccessHistory::Access>> accesses(kThreads);
  std::array<std::atomic<uint64_t>, kObjects> values{};
  std::vector<SharedSet> sets;
  for (unsigned node = 0; node < kNodes; ++node) sets.push_back(shared(node, "set", 64));
  std::vector<std::thread> threads;
  for (unsigned id = 0; id < kThreads; ++id)
    threads.emplace_back([&, id] {
      const SharedSet& set = sets[id % kNodes];
      std::mt19937 random(id);
      for (unsigned i = 0; i < kOperations; ++i) {
        const unsigned object = static_cast<unsigned>(random() % kObjects);
        if (random() % 8 != 0) {
          const auto pin = set.get({object});
          const Words& words = pin->as<Words>();
          EXPECT_EQ(words[0], words[7]);
          accesses[id].push_back({id, object, words[0] + 1, 0});
        } else {
          auto pin = set.grab({object});
          Words& words = pin->as<Words>();
          const uint64_t read = words[0], wrote = ++values[object];
          words[0] = words[7] = wrote;
          accesses[id].push_back({id, object, read + 1, wrote + 1});
        }
      }
    });
  for (auto& thread : threads) thread.join();
  kddm::AccessHistory history;
  for (unsigned object = 0; object < kObjects; ++object) history.begin_object(object, 1);
  for (const auto& of_thread : accesses)
    for (const auto& access : of_thread) history.record(access);
  EXPECT_EQ(history.violation(), "");
}

class KeptPinsTest : public ::testing::Test {
 protected:
  std::unique_ptr<KeptWord[]> words_{new KeptWord[kKeptSlots]()};
  KeptPins pins_{words_.get()};
};

TEST_F(KeptPinsTest, ReadsAheadWhileThatPays) {
  const SetId set{1};
  uint64_t pin = 0;
  unsigned ahead = 0;
  for (unsigned i = 0; i < 1000; ++i) {
    if (!pins_.reads_ahead(set)) continue;
    ++ahead;
    for (uint64_t n = 1; n < KeptPins::kNeighbours; ++n) {
      EXPECT_NE(pins_.add(++pin, {set, {n}, 8, true}), kNoSlot);
      EXPECT_TRUE(pins_.take_back(pin));
    }
  }
  EXPECT_LT(ahead, 60u);
  EXPECT_GT(ahead, 30u);
  while (!pins_.reads_ahead(set)) continue;
  for (uint64_t n = 1; n < KeptPins::kNeighbours; ++n) {
    const uint32_t slot = pins_.add(++pin, {set, {n}, 8, true});
    EXPECT_TRUE(words_[slot].enter(pin));
    EXPECT_FALSE(words_[slot].leave());
    EXPECT_TRUE(pins_.take_back(pin));
  }
  EXPECT_TRUE(pins_.reads_ahead(set));
}

TEST_F(KeptPinsTest, WhoUsesAPinThatIsTakenBackPutsIt) {
  const uint32_t slot = pins_.add(5, {{1}, {2}, 8});
  EXPECT_TRUE(words_[slot].enter(5));
  EXPECT_FALSE(words_[slot].enter(6)) << "of another pin";
  EXPECT_FALSE(pins_.take_back(5));
  EXPECT_FALSE(pins_.has({1}, {2}));
  EXPECT_FALSE(words_[slot].enter(5));
  EXPECT_FALSE(words_[slot].leave());
  EXPECT_TRUE(words_[slot].leave()) << "the last one";
  EXPECT_NE(pins_.add(6, {{1}, {2}, 8}), slot) << "not put yet";
  pins_.was_put(5);
  EXPECT_EQ(pins_.add(7, {{1}, {3}, 8}), slot);
}

}  // namespace
}  // namespace krg
