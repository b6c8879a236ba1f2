// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpu_numbers.h"

#include <gtest/gtest.h>

#include <random>

namespace krg {
namespace {

TEST(CpuNumbers, ListsAreReadAndWritten) {
  EXPECT_EQ(parse_cpu_list("0-3,8\n"), (CpuNumbers{0, 1, 2, 3, 8}));
  EXPECT_EQ(parse_cpu_list("5"), (CpuNumbers{5}));
  EXPECT_EQ(parse_cpu_list("\n"), CpuNumbers{});
  EXPECT_EQ(format_cpu_list({0, 1, 2, 3, 8}), "0-3,8");
  EXPECT_EQ(format_cpu_list({7, 9, 10}), "7,9-10");
  EXPECT_EQ(format_cpu_list({}), "");
}

TEST(CpuNumbers, WhatIsNoListIsLeftOut) {
  EXPECT_EQ(parse_cpu_list("x,1,2-y,3--4,,6"), (CpuNumbers{1, 6}));
  EXPECT_EQ(parse_cpu_list("0-4294967295"), CpuNumbers{});
  EXPECT_EQ(parse_cpu_list("3-1,2,2"), (CpuNumbers{2}));
}

TEST(CpuNumbers, MasksAreReadAndWrittenAsTheKernelDoes) {
  EXPECT_EQ(parse_cpu_mask("3\n"), (CpuNumbers{0, 1}));
  EXPECT_EQ(parse_cpu_mask("1,00000000,80000001"), (CpuNumbers{0, 31, 64}));
  EXPECT_EQ(format_cpu_mask({0, 1}, 2), "3");
  EXPECT_EQ(format_cpu_mask({4}, 8), "10");
  EXPECT_EQ(format_cpu_mask({0, 31, 64}, 96), "00000001,00000000,80000001");
  EXPECT_EQ(format_cpu_mask({0, 32}, 33), "1,00000001");
  EXPECT_EQ(format_cpu_mask({}, 0), "00000000");
}

TEST(CpuNumbers, ListsAndMasksKeepEverySet) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    CpuNumbers cpus;
    for (unsigned cpu = 0; cpu < 200; ++cpu)
      if (random() % 3 == 0) cpus.push_back(cpu);
    EXPECT_EQ(parse_cpu_list(format_cpu_list(cpus)), cpus);
    EXPECT_EQ(parse_cpu_mask(format_cpu_mask(cpus, 200)), cpus);
  }
}

TEST(CpuPlaces, NumberANodesProcessorsInOrder) {
  CpuPlaces places{.first = 4, .locals = {2, 3, 7}, .first_package = 0};
  EXPECT_EQ(places.cluster_number(3), 5u);
  EXPECT_EQ(places.cluster_number(4), std::nullopt);
  EXPECT_EQ(places.local_number(6), 7u);
  EXPECT_EQ(places.local_number(7), std::nullopt);
  EXPECT_EQ(places.local_number(3), std::nullopt);
  EXPECT_EQ(places.to_cluster({0, 2, 7}), (CpuNumbers{4, 6}));
  EXPECT_EQ(places.end(), 7u);
}

}  // namespace
}  // namespace krg
