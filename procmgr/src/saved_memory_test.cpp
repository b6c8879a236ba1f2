// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/saved_memory.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

SavedMemory made(uint64_t id, std::vector<std::string> names) {
  SavedMemory memory;
  memory.id = id;
  memory.mode = S_IFREG | 0640;
  memory.uid = 7;
  memory.bytes = 5000;
  memory.covered = 8192;
  memory.names = std::move(names);
  return memory;
}

TEST(SavedMemory, IsWhatWasPacked) {
  SavedMemory segment = made(3, {});
  segment.is_segment = 1;
  segment.object.id = 32769;
  segment.object.key = 0x4b;
  SavedMemory link = made(4, {"to"});
  link.mode = S_IFLNK | 0777;
  link.target = "b/c";
  const auto all = unpack_memories(pack_memories({made(2, {"a", "b/c"}), segment, link}));
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 3U);
  EXPECT_EQ(all->at(0).names, (std::vector<std::string>{"a", "b/c"}));
  EXPECT_EQ(all->at(0).mode, S_IFREG | 0640U);
  EXPECT_EQ(all->at(0).covered, 8192U);
  EXPECT_EQ(all->at(1).object.id, 32769);
  EXPECT_EQ(all->at(2).target, "b/c");
  EXPECT_TRUE(unpack_memories("")->empty()) << "of a checkpoint that has none";
}

TEST(SavedMemory, NamesLieBelowTheFolder) {
  for (const char* name : {"", "/a", "../a", "a/../../b", "a//b", "a/", "."})
    EXPECT_FALSE(unpack_memories(pack_memories({made(2, {name})}))) << name;
}

TEST(SavedMemory, WhatIsCutShortIsRefused) {
  const std::string bytes = pack_memories({made(2, {"a"}), made(3, {})});
  for (size_t length = 1; length < bytes.size(); ++length)
    EXPECT_FALSE(unpack_memories(std::string_view(bytes).substr(0, length))) << length;
}

}  // namespace
}  // namespace krg
