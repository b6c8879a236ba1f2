// SPDX-License-Identifier: GPL-2.0-or-later
#include "plain_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace krg {
namespace {

constexpr FileUser kRoot{0, 0};
constexpr FileUser kNobody{65534, 65534};

class PlainFilesTest : public testing::Test {
 protected:
  PlainFilesTest() {
    std::string name = testing::TempDir() + "plainXXXXXX";
    directory_ = mkdtemp(name.data());
    std::filesystem::create_directory(directory_ / "sub");
    std::ofstream(directory_ / "sub/text") << std::string(40000, 'x');
    std::filesystem::create_symlink("/etc/passwd", directory_ / "link");
  }
  ~PlainFilesTest() override { std::filesystem::remove_all(directory_); }
  PlainFiles files() { return PlainFiles::open(directory_).value(); }
  FileUser me() const { return {geteuid(), getegid()}; }

  std::filesystem::path directory_;
};

TEST_F(PlainFilesTest, ReadsWritesAndLists) {
  PlainFiles plain = files();
  EXPECT_EQ(plain.read(me(), "sub/text").value().size(), 40000u);
  EXPECT_EQ(plain.write(me(), "sub/text", "abc").value(), 3u);
  EXPECT_EQ(plain.read(me(), "sub/text").value().substr(0, 4), "abcx");
  EXPECT_EQ(plain.attributes(me(), "sub").value().st_mode & S_IFMT, mode_t{S_IFDIR});
  EXPECT_EQ(plain.link_target(me(), "link").value(), "/etc/passwd");
  EXPECT_EQ(plain.link_target(me(), "sub/text").error().code.value(), EINVAL);
  auto entries = plain.list(me(), "").value();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_TRUE(std::any_of(entries.begin(), entries.end(), [](const FsDirEntry& entry) {
    return entry.name == "link" && entry.type == S_IFLNK;
  }));
  EXPECT_EQ(plain.read(me(), "missing").error().code.value(), ENOENT);
}

TEST_F(PlainFilesTest, NeverLeavesTheDirectory) {
  PlainFiles plain = files();
  EXPECT_FALSE(plain.read(me(), "link"));
  EXPECT_FALSE(plain.read(me(), "../" + directory_.filename().string() + "/sub/text"));
  EXPECT_FALSE(plain.read(me(), "/etc/passwd"));
}

TEST_F(PlainFilesTest, ActsAsTheUserAndComesBack) {
  if (geteuid() != 0) GTEST_SKIP() << "lacks root: needed to act as another user";
  PlainFiles proc = PlainFiles::open("/proc").value();
  std::string environment = std::to_string(getpid()) + "/environ";
  EXPECT_TRUE(proc.read(kRoot, environment));
  EXPECT_EQ(proc.read(kNobody, environment).error().code.value(), EACCES);
  EXPECT_TRUE(proc.read(kNobody, std::to_string(getpid()) + "/stat"));
  EXPECT_EQ(geteuid(), 0u);
  EXPECT_EQ(getegid(), 0u);
  EXPECT_TRUE(proc.read(kRoot, environment));
}

}  // namespace
}  // namespace krg
