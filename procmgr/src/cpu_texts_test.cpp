// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpu_texts.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

// The second of two machines with two processors each.
const CpuPlaces kSecond{.first = 2, .locals = {0, 1}, .first_package = 1};

std::string second(std::string_view path, std::string_view text) {
  return cluster_cpu_text(path, text, NodeId{1}, kSecond, 4);
}

TEST(CpuTexts, MasksAndListsAreTheClusters) {
  EXPECT_EQ(second("topology/core_siblings", "3\n"), "c\n");
  EXPECT_EQ(second("topology/thread_siblings", "2\n"), "8\n");
  EXPECT_EQ(second("topology/package_cpus_list", "0-1\n"), "2-3\n");
  EXPECT_EQ(second("topology/thread_siblings_list", "1\n"), "3\n");
  EXPECT_EQ(second("cache/index3/shared_cpu_map", "00000003\n"), "c\n");
  EXPECT_EQ(second("cache/index3/shared_cpu_list", "0-1\n"), "2-3\n");
}

TEST(CpuTexts, PackagesAndCachesOfNodesDiffer) {
  EXPECT_EQ(second("topology/physical_package_id", "0\n"), "1\n");
  EXPECT_EQ(second("topology/physical_package_id", "-1\n"), "-1\n");
  EXPECT_EQ(second("cache/index3/id", "5\n"), "65541\n");
  EXPECT_EQ(cluster_cpu_text("cache/index3/id", "5\n", NodeId{0}, kSecond, 4), "5\n");
}

TEST(CpuTexts, AllElseStays) {
  EXPECT_EQ(second("topology/core_id", "1\n"), "1\n");
  EXPECT_EQ(second("cache/index0/size", "48K\n"), "48K\n");
  EXPECT_EQ(second("", ""), "");
}

TEST(CpuTexts, ProcessorsThatTheNodeDoesNotHaveAreNotShown) {
  CpuPlaces bound{.first = 2, .locals = {1}, .first_package = 0};
  EXPECT_EQ(cluster_cpu_text("topology/core_siblings_list", "0-1", NodeId{1}, bound, 3), "2\n");
}

}  // namespace
}  // namespace krg
