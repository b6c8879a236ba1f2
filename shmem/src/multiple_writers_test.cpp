// Pages with several writers under the simulator (testing/sim_writers.h). KRG_SIM_RUNS=n runs n
// times as many seeds; KRG_SIM_SEED=n replays one. SPDX-License-Identifier: GPL-2.0-or-later
#include "multiple_writers.h"

#include <gtest/gtest.h>

#include "krg/shmem/memory_abi.h"
#include "testing/sim_seeds.h"
#include "testing/sim_writers.h"

namespace krg {
namespace {

class MultipleWritersSimulation : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!(Userfaultfd::kernel_features() & kUffdWpUnpopulated))
      GTEST_SKIP() << "lacks userfaultfd: page sets need Linux 6.4";
  }

  // Runs seeds until one fails; expects that pages came to have several writers.
  static void run(SimWriters::Options options, unsigned seeds) {
    MultipleWritersStatistics all;
    for (uint64_t seed = first_seed(), i = 0; i < seed_count(seeds); ++seed, ++i) {
      options.seed = seed;
      SimWriters cluster(options);
      ASSERT_TRUE(cluster.run()) << cluster.failure() << "\nreplay with KRG_SIM_SEED=" << seed;
      all.pages_begun += cluster.statistics().pages_begun;
      all.pages_ended += cluster.statistics().pages_ended;
      all.pages_told += cluster.statistics().pages_told;
    }
    EXPECT_GT(all.pages_begun, 0u);
    EXPECT_GT(all.pages_told, 0u);
    const bool some_end = options.atomic_one_in > 0 || options.visit_one_in > 0;
    EXPECT_EQ(all.pages_ended > 0, some_end);
    RecordProperty("begun", static_cast<int>(all.pages_begun));
    RecordProperty("ended", static_cast<int>(all.pages_ended));
    RecordProperty("told", static_cast<int>(all.pages_told));
  }
};

TEST_F(MultipleWritersSimulation, TwoNodes) {
  run({.nodes = 2}, 8);
}

TEST_F(MultipleWritersSimulation, TwoNodesWhosePagesComeAndGo) {
  run({.nodes = 2, .atomic_one_in = 40, .runs_one_in = 10, .visit_one_in = 8}, 8);
}

TEST_F(MultipleWritersSimulation, FourNodes) {
  run({.nodes = 4, .threads_per_node = 2}, 16);
}

TEST_F(MultipleWritersSimulation, FourNodesWhosePagesComeAndGo) {
  run({.nodes = 4,
       .threads_per_node = 2,
       .atomic_one_in = 40,
       .runs_one_in = 10,
       .visit_one_in = 8},
      4);
}

// The home protects pages along with one that another node reads (PageHolder::protect_run). One
// that had several writers then had been left writable when it came to have one again.
TEST_F(MultipleWritersSimulation, ProtectedWithItsNeighboursAPageEndsAsOneThatMayBeWritten) {
  constexpr size_t kShared = 3;
  const auto byte_of = [](size_t page, size_t byte) { return page * kPageBytes + byte; };
  SimWriters cluster({.threads_per_node = 2, .pages = 8});
  constexpr unsigned kHome = 0, kOther = 2, kBesideOther = 3, kOtherNode = 1;
  // The second of two threads that fault together makes it so: no node waits for the page then.
  for (unsigned node : {kHome, kOther, kHome}) cluster.write(node, byte_of(kShared, 8 + node));
  cluster.start_write(kOther, byte_of(kShared, 16));
  cluster.write(kBesideOther, byte_of(kShared, 24));
  cluster.settle();
  ASSERT_EQ(cluster.statistics().pages_begun, 1u);
  for (size_t page : {kShared - 2, kShared - 1}) cluster.write(kHome, byte_of(page, 0));
  cluster.synchronise();
  for (size_t page : {kShared - 2, kShared - 1}) cluster.read(kOther, byte_of(page, 0));
  cluster.write(kHome, byte_of(kShared, 8));
  cluster.pages(kOtherNode)
      .visit(
          {kShared}, 1, [](PageIndex, std::span<const std::byte>) {}, [](const Status&) {});
  cluster.synchronise();
  ASSERT_EQ(cluster.statistics().pages_ended, 1u);
  cluster.read(kOther, byte_of(kShared, 8));
  cluster.write(kHome, byte_of(kShared, 8));
  cluster.synchronise();
  cluster.read(kOther, byte_of(kShared, 8));
  EXPECT_EQ(cluster.failure(), "");
}

// It is looked at so often without a change that it is protected: what is written just then is
// seen.
TEST_F(MultipleWritersSimulation, WhatIsWrittenWhileAPageIsProtectedForBeingStillIsTold) {
  constexpr size_t kShared = 3 * kPageBytes;
  constexpr unsigned kHome = 0, kOther = 1, kMostLooks = 200;
  SimWriters cluster({.threads_per_node = 1, .pages = 8});
  for (unsigned round = 0; round < 4; ++round) {
    cluster.write(kHome, kShared + 8);
    cluster.write(kOther, kShared + 16);
    cluster.settle();
  }
  ASSERT_EQ(cluster.statistics().pages_begun, 1u);
  cluster.write(kOther, kShared + 16);
  cluster.synchronise();
  for (size_t byte = 24; byte < 64; ++byte) {
    cluster.write_meanwhile(kOther, kShared + byte);
    for (unsigned look = 0; look < kMostLooks && cluster.is_writing(kOther); ++look)
      cluster.pages(kOther).publish(NodeId{0});
    cluster.settle();
    while (cluster.is_writing(kOther)) cluster.turn();
    cluster.synchronise();
    cluster.read(kHome, kShared + byte);
  }
  EXPECT_EQ(cluster.failure(), "");
}

}  // namespace
}  // namespace krg
