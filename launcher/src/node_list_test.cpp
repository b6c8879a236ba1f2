// SPDX-License-Identifier: GPL-2.0-or-later
#include "node_list.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

using Kind = NodeSelection::Kind;

std::vector<NodeId> ids(std::initializer_list<uint16_t> values) {
  std::vector<NodeId> nodes;
  for (uint16_t value : values) nodes.push_back(NodeId{value});
  return nodes;
}

std::vector<NodeId> parsed(std::string_view text) {
  auto nodes = parse_node_list(text, 32);
  EXPECT_TRUE(nodes) << text;
  return nodes ? *nodes : ids({});
}

TEST(NodeList, TakesBothSpellingsOfARange) {
  EXPECT_EQ(parsed("16:18"), ids({16, 17, 18}));
  EXPECT_EQ(parsed("21-23"), ids({21, 22, 23}));
  EXPECT_EQ(parsed("4,1-2,2:3,31"), ids({1, 2, 3, 4, 31}));
}

TEST(NodeList, RefusesWhatIsNoListAndNodesThatAreNotThere) {
  for (const char* text : {"", "1,", ",1", "a", "3-1", "1-", "-1", "1-2-3", "1 2", "32", "30-32"})
    EXPECT_FALSE(parse_node_list(text, 32)) << text;
}

TEST(NodeSelection, AddsTheLowestFirst) {
  const auto online = ids({0, 4}), present = ids({1, 2, 3});
  EXPECT_EQ(*nodes_to_add({Kind::kCount, {}, 2}, online, present), ids({1, 2}));
  EXPECT_EQ(*nodes_to_add({Kind::kTotal, {}, 3}, online, present), ids({1}));
  EXPECT_EQ(*nodes_to_add({Kind::kTotal, {}, 1}, online, present), ids({}));
  EXPECT_EQ(*nodes_to_add({Kind::kAll, {}, 0}, online, present), present);
  EXPECT_FALSE(nodes_to_add({Kind::kCount, {}, 4}, online, present));
  EXPECT_FALSE(nodes_to_add({Kind::kTotal, {}, 6}, online, present));
}

TEST(NodeSelection, RemovesTheHighestFirstAndNeverNode0) {
  const auto online = ids({0, 1, 2, 5});
  EXPECT_EQ(*nodes_to_remove({Kind::kCount, {}, 2}, online), ids({2, 5}));
  EXPECT_EQ(*nodes_to_remove({Kind::kTotal, {}, 3}, online), ids({5}));
  EXPECT_EQ(*nodes_to_remove({Kind::kTotal, {}, 9}, online), ids({}));
  EXPECT_EQ(*nodes_to_remove({Kind::kAll, {}, 0}, online), ids({1, 2, 5}));
  EXPECT_FALSE(nodes_to_remove({Kind::kCount, {}, 4}, online));
  EXPECT_FALSE(nodes_to_remove({Kind::kTotal, {}, 0}, online));
}

}  // namespace
}  // namespace krg
