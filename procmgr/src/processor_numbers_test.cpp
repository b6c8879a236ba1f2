// SPDX-License-Identifier: GPL-2.0-or-later
#include "processor_numbers.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

// The third of four nodes with two processors each; the kernel calls its own 4 and 5.
const ProcessorNumbers kNumbers{{4, 5}, 4, 8};
// The second of two nodes that share the machine's processors 0 and 1.
const ProcessorNumbers kShared{{0, 1}, 2, 4};

TEST(ProcessorNumbers, MasksGoThereAndBack) {
  const ProcessorSet set{0, 7, 8, 63};
  EXPECT_EQ(set_of_mask(mask_of_set(set, 8)), set);
  EXPECT_EQ(mask_of_set({0, 9}, 2), std::string("\x01\x02"));
}

TEST(ProcessorNumbers, AnUnrestrictedThreadIsToldTheCluster) {
  EXPECT_EQ(to_cluster({4, 5}, kNumbers), (ProcessorSet{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(to_cluster({0, 1, 2, 3}, kShared), (ProcessorSet{0, 1, 2, 3}))
      << "more than the node's";
}

TEST(ProcessorNumbers, ARestrictedOneItsShareByClusterNumbers) {
  EXPECT_EQ(to_cluster({5}, kNumbers), (ProcessorSet{5}));
  EXPECT_EQ(to_cluster({0}, kShared), (ProcessorSet{2}));
}

TEST(ProcessorNumbers, WhatAThreadIsToldItMaySet) {
  for (const ProcessorNumbers& numbers : {kNumbers, kShared})
    for (unsigned cpu : numbers.own) {
      const ProcessorSet told = to_cluster({cpu}, numbers);
      EXPECT_EQ(to_node(told, numbers), (ProcessorSet{cpu}));
    }
  const ProcessorSet everything = to_cluster({0, 1}, kShared);
  EXPECT_EQ(to_node(everything, kShared), (ProcessorSet{0, 1}));
}

TEST(ProcessorNumbers, AnotherNodesProcessorsCannotBeHad) {
  EXPECT_FALSE(to_node({0, 1}, kNumbers));
  EXPECT_EQ(to_node({3, 4}, kNumbers), (ProcessorSet{4}));
}

TEST(ProcessorNumbers, ABoundThreadHasTheSamePlacesElsewhere) {
  const ProcessorSet there{8, 9, 10};
  EXPECT_EQ(places_among({4, 5}, {5, 7}), (std::vector<uint32_t>{1}));
  EXPECT_EQ(at_places({1}, there), (ProcessorSet{9}));
  EXPECT_EQ(at_places({1, 4}, there), (ProcessorSet{9})) << "fewer than its node had";
  EXPECT_EQ(places_among({4, 5}, {4, 5, 6}), (std::vector<uint32_t>{})) << "not bound";
  EXPECT_EQ(places_among({4, 5}, {6}), (std::vector<uint32_t>{})) << "another node's";
  EXPECT_EQ(at_places({}, there), there);
}

}  // namespace
}  // namespace krg
