// Nodes die in the middle of traffic. SPDX-License-Identifier: GPL-2.0-or-later
#include <cstdlib>
#include <map>
#include <random>
#include <set>

#include "testing/kddm_fixture.h"

namespace krg {
namespace {

using testing::kSet;

class KddmLossTest : public testing::KddmFixture {
 protected:
  static constexpr unsigned kObjects = 12;

  // Additions by random living nodes to random objects. A completed one counts in `expected_`.
  void start_additions(unsigned count, std::mt19937& random) {
    for (unsigned i = 0; i < count; ++i) {
      const unsigned node = static_cast<unsigned>(random() % kddms_.size());
      const ObjectId object{random() % kObjects};
      if (!alive_[node]) continue;
      const bool write = random() % 2 == 0, hold = random() % 4 == 0;
      ++under_way_[node];
      auto use = [this, node, object, write, hold](Result<std::span<std::byte>> bytes) {
        if (!alive_[node]) return;
        --under_way_[node];
        if (!bytes) {
          EXPECT_EQ(bytes.error().errno_or(0), EOWNERDEAD);
          lost_.insert(object.value);
          return;
        }
        EXPECT_TRUE(forgetful_ || lost_.count(object.value) == 0)
            << "what was lost does not come back";
        if (write) set_number(*bytes, ++expected_[object.value]);
        if (!hold) return kddms_[node]->put(kSet, object);
        // Pinned for some turns of the loop; a loss may come meanwhile.
        held_.push_back(loop_->after(std::chrono::microseconds(50), [this, node, object] {
          if (alive_[node]) kddms_[node]->put(kSet, object);
        }));
      };
      if (random() % 16 == 0)
        kddms_[node]->flush(kSet, object, NodeId{static_cast<uint16_t>(random() % kddms_.size())});
      if (write) {
        kddms_[node]->grab(kSet, object, Kddm::Touch::kFirstTouch, use);
      } else {
        kddms_[node]->get(kSet, object, Kddm::Touch::kFirstTouch, use);
      }
    }
  }
  void wait_for_survivors() {
    run_until([&] {
      for (unsigned n = 0; n < kddms_.size(); ++n)
        if (alive_[n] && under_way_[n] > 0) return false;
      return true;
    });
  }
  // Every living node sees the newest number of each object, or that it is lost.
  unsigned check_all() {
    unsigned lost = 0;
    for (unsigned o = 0; o < kObjects; ++o) {
      int seen = 0;
      for (unsigned n = 0; n < kddms_.size(); ++n) {
        if (!alive_[n]) continue;
        auto value = try_add(n, ObjectId{o}, 0);
        if (value) {
          EXPECT_EQ(*value, forgetful_ && *value == 0 ? 0 : expected_[o])
              << "object " << o << " on node " << n;
        } else {
          EXPECT_EQ(value.error().errno_or(0), EOWNERDEAD);
        }
        EXPECT_NE(seen, value ? -1 : 1) << "all nodes agree on object " << o;
        seen = value ? 1 : -1;
      }
      lost += seen < 0;
    }
    return lost;
  }

  void forget() {
    held_.clear();
    under_way_.clear();
    expected_.clear();
    lost_.clear();
    unmake();
  }
  // KRG_SIM_RUNS multiplies the number of seeds.
  static unsigned seeds(unsigned otherwise) {
    const char* times = std::getenv("KRG_SIM_RUNS");
    return otherwise * (times ? static_cast<unsigned>(std::strtoul(times, nullptr, 10)) : 1);
  }

  std::vector<EventLoop::Timer> held_;
  bool forgetful_ = false;  // objects may be as if they had never been
  std::map<unsigned, int> under_way_;
  std::map<uint64_t, uint64_t> expected_;
  std::set<uint64_t> lost_;
};

TEST_F(KddmLossTest, SurvivorsGoOnWhateverTheMomentOfDeath) {
  unsigned lost = 0, kept = 0;
  for (unsigned seed = 1; seed <= seeds(60); ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    make(3 + seed % 4, 64, nullptr);
    start_additions(200, random);
    run_some(static_cast<unsigned>(random() % 12));
    kill(static_cast<unsigned>(random() % kddms_.size()));
    run_some(static_cast<unsigned>(random() % 3));
    start_additions(100, random);
    wait_for_survivors();
    const unsigned gone = check_all();
    lost += gone;
    kept += kObjects - gone;
    if (HasFailure()) return;
    forget();
  }
  EXPECT_GT(lost, 0u);
  EXPECT_GT(kept, lost);
}

TEST_F(KddmLossTest, AnotherDeathDuringTheRecoveryIsSurvivedToo) {
  for (unsigned seed = 1; seed <= seeds(1200); ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    make(4 + seed % 4, 64, nullptr);
    start_additions(200, random);
    run_some(static_cast<unsigned>(random() % 12));
    const unsigned first = static_cast<unsigned>(random() % kddms_.size());
    kill(first);
    run_some(static_cast<unsigned>(random() % 8));
    // Neighbours are manager and mirror of some objects: nobody remembers those.
    const unsigned apart = 1 + seed % 2;
    forgetful_ = apart == 1;
    kill((first + apart) % static_cast<unsigned>(kddms_.size()));
    start_additions(100, random);
    wait_for_survivors();
    check_all();
    if (HasFailure()) return;
    forget();
  }
}

// Every object that only the dead node had is lost, also those that it managed itself; an object
// that nobody ever had is made as ever.
TEST_F(KddmLossTest, WhatOnlyTheDeadNodeHadIsLostAndStartsAnewAfterARemoval) {
  make(4, 8, nullptr);
  for (uint64_t o = 0; o < 64; ++o) add(2, ObjectId{o}, 5);
  for (uint64_t o = 0; o < 64; o += 2) add(1, ObjectId{o}, 0);
  run_some(50);  // the managers and their mirrors have heard of the objects
  kill(2);
  for (uint64_t o = 0; o < 64; ++o) {
    auto value = try_add(o % 4 == 1 ? 0 : 3, ObjectId{o}, 0);
    if (o % 2 == 0) {
      ASSERT_TRUE(value);
      EXPECT_EQ(*value, 5u);
    } else {
      ASSERT_FALSE(value) << "object " << o;
      EXPECT_EQ(value.error().errno_or(0), EOWNERDEAD);
    }
  }
  remove(0, ObjectId{1});
  EXPECT_EQ(add(3, ObjectId{1}, 0), 0u);
  for (uint64_t o = 64; o < 96; ++o) EXPECT_EQ(add(1, ObjectId{o}, 0), 0u) << "was never made";
}

TEST_F(KddmLossTest, WhatWasRemovedBeforeIsNotLost) {
  make(3, 8, nullptr);
  for (uint64_t o = 0; o < 32; ++o) add(2, ObjectId{o}, 5);
  for (uint64_t o = 0; o < 32; ++o) remove(2, ObjectId{o});
  run_some(50);
  kill(2);
  for (uint64_t o = 0; o < 32; ++o) EXPECT_EQ(add(o % 2, ObjectId{o}, 0), 0u);
}

TEST_F(KddmLossTest, OneNodeAloneGoesOn) {
  make(3, 8, nullptr);
  add(0, ObjectId{1}, 3);
  add(1, ObjectId{2}, 3);
  run_some(50);
  kill(1);
  EXPECT_FALSE(try_add(2, ObjectId{2}, 1));
  kill(2);
  EXPECT_EQ(add(0, ObjectId{1}, 1), 4u);
  EXPECT_FALSE(try_add(0, ObjectId{2}, 1));
  EXPECT_EQ(add(0, ObjectId{3}, 1), 1u);
}

// The set is opened on a node only after the recovery that made the node a manager in it.
TEST_F(KddmLossTest, ASetThatIsOpenedLaterKnowsWhatWasLost) {
  make(3, 8, nullptr);
  const SetId late{8};
  for (unsigned n = 1; n < 3; ++n) ASSERT_TRUE(kddms_[n]->open_set(late, {.object_bytes = 8}));
  unsigned made = 0;
  for (uint64_t o = 0; o < 48; ++o)
    kddms_[2]->grab(late, ObjectId{o}, Kddm::Touch::kFirstTouch, [&, o](auto bytes) {
      if (!bytes) return;
      ++made;
      kddms_[2]->put(late, ObjectId{o});
    });
  run_some(100);
  EXPECT_GT(made, 0u);
  EXPECT_LT(made, 48u) << "node 0 manages some, and has not opened the set";
  kill(2);
  run_some(200);
  ASSERT_TRUE(kddms_[0]->open_set(late, {.object_bytes = 8}));
  unsigned answered = 0, lost = 0;
  for (uint64_t o = 0; o < 48; ++o)
    kddms_[1]->get(late, ObjectId{o}, Kddm::Touch::kFirstTouch, [&](auto bytes) {
      ++answered;
      lost += !bytes && bytes.error().errno_or(0) == EOWNERDEAD;
    });
  run_until([&] { return answered == 48; });
  EXPECT_EQ(lost, made);
}

}  // namespace
}  // namespace krg
