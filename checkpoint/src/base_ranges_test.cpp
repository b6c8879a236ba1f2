// What a node wrote last is taken for what is there only while nobody has touched it.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "base_ranges.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

namespace krg {
namespace {

constexpr uint64_t kId = 7;

PageRange pages_at(uint64_t address) {
  PageRange range{};
  range.start = {address};
  range.bytes = kCheckpointPage;
  return range;
}

class LastPartsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/last_parts_XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder = name;
    auto opened = CheckpointStore::open(folder, false);
    ASSERT_TRUE(opened);
    store.emplace(std::move(*opened));
    ASSERT_TRUE(store->lock());
    PartContents contents;
    contents.version = 1;
    contents.id = kId;
    contents.page_bytes = 2 * kCheckpointPage;
    contents.family.members.resize(1);
    contents.family.members[0].pid = 100;
    PartRange& range = contents.ranges.emplace_back();
    range.version = 1;
    range.address = 0x10000;
    range.bytes = 2 * kCheckpointPage;
    auto writer = PartWriter::create(store->part_path(1, 0), contents, {});
    ASSERT_TRUE(writer) << writer.error().message();
    ASSERT_TRUE((*writer)->write(0, std::vector<std::byte>(2 * kCheckpointPage)));
    ASSERT_TRUE((*writer)->finish());
    PartOrder order;
    order.folder = folder;
    order.version = 1;
    order.id = kId;
    last.keep(*store, order, BaseRanges(contents, BaseRanges()));
    VersionInfo info;
    info.version = 1;
    info.id = kId;
    info.nodes = {0};
    ASSERT_TRUE(store->commit(info));
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  std::shared_ptr<const BaseRanges> find(uint64_t id = kId) const {
    PartOrder order;
    order.folder = folder;
    order.version = 2;
    order.base = {1, id};
    return last.find(*store, order);
  }

  std::string folder;
  std::optional<CheckpointStore> store;
  LastParts last;
};

TEST_F(LastPartsTest, IsWhereItWasWritten) {
  const auto known = find();
  ASSERT_TRUE(known);
  EXPECT_EQ(known->id_of(1), kId);
  std::vector<PartRange> found;
  ASSERT_TRUE(known->find("100", 0, pages_at(0x11000), found));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].offset, kCheckpointPage);
  EXPECT_FALSE(known->find("100", 0, pages_at(0x12000), found));
  EXPECT_FALSE(known->find("101", 0, pages_at(0x11000), found));
}

TEST_F(LastPartsTest, AnotherVersionIsRead) {
  EXPECT_FALSE(find(kId + 1));
}

TEST_F(LastPartsTest, APartThatHasTakenItsPlaceIsRead) {
  const std::string path = store->part_path(1, 0);
  std::filesystem::copy_file(path, path + ".tmp");
  std::filesystem::rename(path + ".tmp", path);
  EXPECT_FALSE(find());
}

TEST_F(LastPartsTest, AVersionThatIsGoneIsNotKnown) {
  std::filesystem::remove(store->master_path(1));
  EXPECT_FALSE(find());
}

}  // namespace
}  // namespace krg
