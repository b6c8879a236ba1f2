// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_names.h"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace krg {
namespace {

constexpr NodeId kHere{1}, kThere{2};
const SharedCaller kRoot{0, 0, {}};
const SharedCaller kAlice{1000, 100, {}};
const SharedCaller kBob{1001, 101, {}};

int error_of(const Status& status) {
  return status ? 0 : status.error().errno_or(-1);
}
int error_of(const Result<SharedAttributes>& result) {
  return result ? 0 : result.error().errno_or(-1);
}

class SharedNamesTest : public testing::Test {
 protected:
  FileId create(const SharedCaller& caller, std::string_view name, mode_t mode = 0600) {
    auto made = names_.create(caller, kTreeRoot, name, mode, O_RDWR);
    EXPECT_TRUE(made) << name;
    return made ? made->id : 0;
  }
  FileId make_folder(const SharedCaller& caller, FileId in, std::string_view name, mode_t mode) {
    auto made = names_.make(caller, in, name, S_IFDIR | mode, {});
    EXPECT_TRUE(made) << name;
    return made ? made->id : 0;
  }

  time_t now_ = 1000;
  SharedNames names_{0, 0, [this] { return timespec{now_, 5}; }};
};

TEST_F(SharedNamesTest, AFileHasItsMakersNameAndTimes) {
  now_ = 1234;
  const FileId file = create(kAlice, "a", 0640);
  const auto found = names_.lookup(kBob, kTreeRoot, "a");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->id, file);
  EXPECT_EQ(found->mode, S_IFREG | 0640U);
  EXPECT_EQ(found->uid, 1000U);
  EXPECT_EQ(found->gid, 100U);
  EXPECT_EQ(found->links, 1U);
  EXPECT_EQ(found->modified_s, 1234);
  EXPECT_EQ(error_of(names_.lookup(kBob, kTreeRoot, "b")), ENOENT);
  EXPECT_EQ(error_of(names_.lookup(kBob, file, "b")), ENOTDIR);
}

TEST_F(SharedNamesTest, OpeningIsGrantedByTheMode) {
  const FileId file = create(kAlice, "a", 0640);
  EXPECT_EQ(error_of(names_.open(kAlice, file, O_RDWR)), 0);
  EXPECT_EQ(error_of(names_.open(kBob, file, O_RDONLY)), EACCES);
  const SharedCaller friend_of_alice{1002, 102, {7, 100}};
  EXPECT_EQ(error_of(names_.open(friend_of_alice, file, O_RDONLY)), 0);
  EXPECT_EQ(error_of(names_.open(friend_of_alice, file, O_RDONLY | O_TRUNC)), EACCES);
  EXPECT_EQ(error_of(names_.open(friend_of_alice, file, O_RDWR)), EACCES);
  EXPECT_EQ(error_of(names_.open(kRoot, file, O_RDWR)), 0);
  EXPECT_EQ(error_of(names_.may_write(friend_of_alice, file)), EACCES);
}

TEST_F(SharedNamesTest, CreatingAFileThatIsThereOpensItUnlessExclusive) {
  const FileId file = create(kAlice, "a", 0600);
  auto again = names_.create(kAlice, kTreeRoot, "a", 0666, O_RDWR);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->id, file);
  EXPECT_EQ(error_of(names_.create(kAlice, kTreeRoot, "a", 0666, O_EXCL)), EEXIST);
  EXPECT_EQ(error_of(names_.create(kBob, kTreeRoot, "a", 0666, O_RDWR)), EACCES);
}

TEST_F(SharedNamesTest, InAStickyFolderOnlyOwnersRemove) {
  create(kAlice, "a");
  EXPECT_EQ(error_of(names_.unlink(kBob, kTreeRoot, "a", false)), EPERM);
  EXPECT_EQ(error_of(names_.rename(kBob, kTreeRoot, "a", kTreeRoot, "b", 0)), EPERM);
  create(kBob, "b");
  EXPECT_EQ(error_of(names_.rename(kBob, kTreeRoot, "b", kTreeRoot, "a", 0)), EPERM);
  EXPECT_EQ(error_of(names_.unlink(kAlice, kTreeRoot, "a", false)), 0);
  EXPECT_EQ(error_of(names_.unlink(kRoot, kTreeRoot, "b", false)), 0);
  EXPECT_EQ(names_.take_gone().size(), 2U);
}

TEST_F(SharedNamesTest, AnUnlinkedFileLivesWhileANodeUsesIt) {
  const FileId file = create(kAlice, "a");
  names_.use(file, kHere);
  names_.use(file, kHere);
  names_.use(file, kThere);
  EXPECT_EQ(error_of(names_.unlink(kAlice, kTreeRoot, "a", false)), 0);
  ASSERT_TRUE(names_.attributes(file));
  EXPECT_EQ(names_.attributes(file)->links, 0U);
  EXPECT_EQ(error_of(names_.link(kAlice, file, kTreeRoot, "again")), ENOENT);
  names_.unuse(file, kHere);
  names_.node_failed(kThere);
  EXPECT_TRUE(names_.take_gone().empty());
  names_.unuse(file, kHere);
  EXPECT_EQ(names_.take_gone(), std::vector<FileId>{file});
  EXPECT_FALSE(names_.attributes(file));
}

TEST_F(SharedNamesTest, AFileMayHaveSeveralNames) {
  const FileId file = create(kAlice, "a");
  ASSERT_TRUE(names_.link(kAlice, file, kTreeRoot, "b"));
  EXPECT_EQ(error_of(names_.link(kAlice, file, kTreeRoot, "b")), EEXIST);
  EXPECT_EQ(names_.attributes(file)->links, 2U);
  EXPECT_EQ(error_of(names_.unlink(kAlice, kTreeRoot, "a", false)), 0);
  EXPECT_EQ(names_.lookup(kAlice, kTreeRoot, "b")->id, file);
  EXPECT_TRUE(names_.take_gone().empty());
}

TEST_F(SharedNamesTest, RenamingTakesTheOldNamesPlace) {
  const FileId first = create(kAlice, "a"), second = create(kAlice, "b");
  constexpr unsigned kNoReplace = 1, kExchange = 2;
  EXPECT_EQ(error_of(names_.rename(kAlice, kTreeRoot, "a", kTreeRoot, "b", kNoReplace)), EEXIST);
  EXPECT_EQ(error_of(names_.rename(kAlice, kTreeRoot, "a", kTreeRoot, "b", kExchange)), EINVAL);
  EXPECT_EQ(error_of(names_.rename(kAlice, kTreeRoot, "a", kTreeRoot, "b", 0)), 0);
  EXPECT_EQ(names_.lookup(kAlice, kTreeRoot, "b")->id, first);
  EXPECT_EQ(error_of(names_.lookup(kAlice, kTreeRoot, "a")), ENOENT);
  EXPECT_EQ(names_.take_gone(), std::vector<FileId>{second});
}

TEST_F(SharedNamesTest, FoldersNestAndAreRemovedWhenEmpty) {
  const FileId outer = make_folder(kAlice, kTreeRoot, "outer", 0755);
  const FileId inner = make_folder(kAlice, outer, "inner", 0755);
  EXPECT_EQ(names_.attributes(outer)->links, 3U);
  EXPECT_EQ(error_of(names_.unlink(kAlice, kTreeRoot, "outer", true)), ENOTEMPTY);
  EXPECT_EQ(error_of(names_.unlink(kAlice, kTreeRoot, "outer", false)), EISDIR);
  EXPECT_EQ(error_of(names_.rename(kAlice, kTreeRoot, "outer", inner, "x", 0)), EINVAL);
  EXPECT_EQ(error_of(names_.create(kBob, outer, "b", 0600, O_RDWR)), EACCES);
  EXPECT_EQ(error_of(names_.rename(kAlice, outer, "inner", kTreeRoot, "inner", 0)), 0);
  EXPECT_EQ(error_of(names_.unlink(kAlice, kTreeRoot, "outer", true)), 0);
  EXPECT_EQ(names_.list(kBob, kTreeRoot)->size(), 1U);
}

TEST_F(SharedNamesTest, AttributesAreChangedByTheOwner) {
  const FileId file = create(kAlice, "a", 0600);
  FsChange mode, owner, group, now;
  mode.mode = 0666;
  owner.uid = 1001;
  group.gid = 101;
  now.modified = timespec{5, 0};
  EXPECT_EQ(error_of(names_.change(kBob, file, mode)), EPERM);
  EXPECT_EQ(error_of(names_.change(kAlice, file, mode)), 0);
  EXPECT_EQ(names_.attributes(file)->mode, S_IFREG | 0666U);
  EXPECT_EQ(error_of(names_.change(kAlice, file, owner)), EPERM);
  EXPECT_EQ(error_of(names_.change(kAlice, file, group)), EPERM);
  EXPECT_EQ(error_of(names_.change(kBob, file, now)), EPERM);
  now.times_are_now = true;
  EXPECT_EQ(error_of(names_.change(kBob, file, now)), 0);
  EXPECT_EQ(error_of(names_.change(kRoot, file, owner)), 0);
  EXPECT_EQ(names_.attributes(file)->uid, 1001U);
}

TEST_F(SharedNamesTest, LinksAndOtherKindsHaveTheirTypes) {
  auto link = names_.make(kAlice, kTreeRoot, "l", S_IFLNK | 0777, "target");
  ASSERT_TRUE(link);
  EXPECT_EQ(link->size, 6U);
  EXPECT_EQ(*names_.link_target(link->id), "target");
  EXPECT_EQ(error_of(names_.make(kAlice, kTreeRoot, "d", S_IFBLK | 0666, {})), EPERM);
  ASSERT_TRUE(names_.make(kAlice, kTreeRoot, "f", S_IFIFO | 0600, {}));
  EXPECT_EQ(names_.lookup(kAlice, kTreeRoot, "f")->mode, S_IFIFO | 0600U);
}

TEST_F(SharedNamesTest, SizesAreSummed) {
  const FileId file = create(kAlice, "a");
  now_ = 2000;
  names_.set_size(file, 5000);
  EXPECT_EQ(names_.bytes(), 5000U);
  EXPECT_EQ(names_.attributes(file)->size, 5000U);
  EXPECT_EQ(names_.attributes(file)->modified_s, 2000);
}

TEST_F(SharedNamesTest, AllAreListedWithAllTheirNamesFoldersFirst) {
  const FileId folder = make_folder(kAlice, kTreeRoot, "long-name-of-a-folder", 0700);
  const FileId inside = create(kAlice, "a");
  ASSERT_TRUE(names_.rename(kAlice, kTreeRoot, "a", folder, "b", 0));
  ASSERT_TRUE(names_.link(kAlice, inside, kTreeRoot, "c"));
  const FileId nameless = names_.add_nameless(kBob);
  std::map<FileId, std::vector<std::string>> listed;
  std::vector<FileId> order;
  for (const auto& one : names_.all()) {
    listed[one.attributes.id] = one.names;
    order.push_back(one.attributes.id);
  }
  EXPECT_EQ(order.size(), 3U);
  EXPECT_EQ(listed[folder], std::vector<std::string>{"long-name-of-a-folder"});
  EXPECT_EQ(listed[inside], (std::vector<std::string>{"c", "long-name-of-a-folder/b"}));
  EXPECT_TRUE(listed.contains(nameless) && listed[nameless].empty());
}

}  // namespace
}  // namespace krg
