// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/fault_counts.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "spread/spread_statistics.h"

namespace krg {
namespace {

constexpr uint64_t kPage = 0x10000;

PageFault written(uint64_t offset, bool was_here = false) {
  return {.address = RemoteAddr{kPage + offset},
          .page = {},
          .thread = 1,
          .write = true,
          .was_here = was_here,
          .was_mapped = false,
          .waited = std::chrono::microseconds(10)};
}

SpreadStatistics two_writers(uint64_t first, uint64_t second) {
  SpreadStatistics statistics;
  statistics.names.add(RemoteAddr{kPage}, kPageBytes, "numbers");
  for (int i = 0; i < 5; ++i) {
    statistics.counts[NodeId{0}].add_fault(1, written(first));
    statistics.counts[NodeId{1}].add_fault(2, written(second));
  }
  return statistics;
}

TEST(FaultCounts, TravelWithAllThatTheyHold) {
  FaultCounts counts;
  counts.add_fault(7, written(16));
  counts.add_fault(7, written(24));
  counts.begin_wait(8);
  counts.end_futex_wait(8);
  auto again = FaultCounts::parse(counts.serialize());
  ASSERT_TRUE(again);
  ASSERT_EQ(again->pages().size(), 1u);
  const FaultCounts::Page& page = again->pages().at(kPage);
  EXPECT_EQ(page.writes, 2u);
  EXPECT_EQ(page.fetched, 2u);
  EXPECT_EQ(page.taken, 1u);
  EXPECT_EQ(page.waited_ns, 20'000u);
  EXPECT_EQ(page.written, (std::set<uint16_t>{2, 3}));
  EXPECT_EQ(again->threads().at(7).faults, 2u);
  EXPECT_EQ(again->threads().at(8).futexes, 1u);
  EXPECT_FALSE(FaultCounts::parse(counts.serialize().substr(1)));
}

TEST(FaultCounts, RegionsHaveWhatTheirThreadsWaitedForInThem) {
  SpreadStatistics statistics;
  FaultCounts& home = statistics.counts[NodeId{0}];
  home.begin(1, {0x4000, 0x4100});
  home.add_fault(1, written(0));
  home.begin_wait(1);
  home.end_team_call(1);
  home.enter(1, {});
  home.add_fault(1, written(8));
  home.add_fault(3, written(8));  // a thread of no team
  FaultCounts away;
  away.enter(2, {0x4000, 0x4100});
  away.add_fault(2, written(16));
  auto told = FaultCounts::parse(away.serialize());
  ASSERT_TRUE(told);
  statistics.counts[NodeId{1}] = std::move(*told);
  const auto report = statistics.report();
  ASSERT_EQ(report["parallel"].size(), 2u);
  const auto& region = report["parallel"][0];
  EXPECT_EQ(region["region"]["address"], 0x4000);
  EXPECT_EQ(region["barrier"]["address"], 0x4100);
  EXPECT_EQ(region["begun"], 1);
  EXPECT_EQ(region["faults"], 2);
  EXPECT_EQ(region["team_calls"], 1);
  EXPECT_EQ(report["parallel"][1]["region"]["name"], "");
  EXPECT_EQ(report["parallel"][1]["faults"], 1);
}

TEST(FaultCounts, WordsOfTheirOwnOnOnePageAreFalseSharing) {
  const auto report = two_writers(0, 8).report();
  ASSERT_EQ(report["false_sharing"].size(), 1u);
  EXPECT_EQ(report["false_sharing"][0]["invalidations"], 8);
  EXPECT_NE(report["false_sharing"][0]["text"].get<std::string>().find("numbers"),
            std::string::npos);
  ASSERT_EQ(report["regions"].size(), 1u);
  EXPECT_EQ(report["regions"][0]["name"], "numbers");
  EXPECT_EQ(report["regions"][0]["ping_pong"], 8);
  EXPECT_EQ(report["regions"][0]["bytes"], 10 * kPageBytes);
}

TEST(FaultCounts, OneWordOfSeveralNodesIsNot) {
  const auto report = two_writers(8, 8).report();
  EXPECT_TRUE(report["false_sharing"].empty());
  EXPECT_EQ(report["regions"][0]["ping_pong"], 8);
}

TEST(FaultCounts, WhatIsHereOrFetchedOnceIsNoPingPong) {
  SpreadStatistics statistics;
  for (int i = 0; i < 5; ++i) statistics.counts[NodeId{0}].add_fault(1, written(0, true));
  statistics.counts[NodeId{1}].add_fault(2, written(8));
  const auto report = statistics.report();
  EXPECT_TRUE(report["false_sharing"].empty());
  EXPECT_EQ(report["regions"][0]["ping_pong"], 0);
  EXPECT_EQ(report["regions"][0]["invalidations"], 0);
}

}  // namespace
}  // namespace krg
