// Instances that watch the same as others did. SPDX-License-Identifier: GPL-2.0-or-later
#include "inotify_state.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace krg {
namespace {

struct Told {
  int number = 0;
  uint32_t mask = 0;
  std::string name;
  bool operator==(const Told&) const = default;
};

class InotifyStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/inotify_state_XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  std::string in_folder(const std::string& name) const { return folder + "/" + name; }
  void touch(const std::string& name) const { std::ofstream(in_folder(name)) << "x"; }
  int watch(const std::string& path, uint32_t mask) {
    paths.add(gettid(), path);
    return inotify_add_watch(instance.get(), path.c_str(), mask);
  }
  Result<std::string> described() const {
    std::vector<UniqueFd> to_close;
    return describe_inotify(instance.get(), &paths, {getpid()}, to_close);
  }
  static std::vector<Told> read_events(int from) {
    std::vector<Told> events;
    alignas(inotify_event) char bytes[4096];
    const ssize_t got = read(from, bytes, sizeof bytes);
    for (ssize_t at = 0; at < got;) {
      inotify_event one;
      memcpy(&one, bytes + at, sizeof one);
      events.push_back({one.wd, one.mask, one.len > 0 ? bytes + at + sizeof one : ""});
      at += static_cast<ssize_t>(sizeof one + one.len);
    }
    return events;
  }

  std::string folder;
  UniqueFd instance{inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
  WatchedPaths paths;
};

TEST_F(InotifyStateTest, NumbersStayAndALossIsTold) {
  touch("file");
  std::filesystem::create_symlink("file", in_folder("link"));
  ASSERT_EQ(watch("/", IN_DELETE_SELF), 1);
  ASSERT_EQ(watch(folder, IN_CREATE), 2);
  ASSERT_EQ(watch(in_folder("link"), IN_MODIFY), 3);
  ASSERT_EQ(watch(in_folder("link"), IN_DELETE_SELF | IN_DONT_FOLLOW), 4);
  inotify_rm_watch(instance.get(), 1);
  touch("unread");
  auto description = described();
  ASSERT_TRUE(description) << description.error().message();
  EXPECT_EQ(paths_of_inotify(*description).size(), 3U);

  auto again = make_inotify(*description, O_NONBLOCK);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(read_events(again->get()), (std::vector<Told>{{-1, IN_Q_OVERFLOW, ""}}));
  touch("new");
  EXPECT_EQ(read_events(again->get()), (std::vector<Told>{{2, IN_CREATE, "new"}}));
  touch("file");
  const auto modified = read_events(again->get());
  ASSERT_FALSE(modified.empty());
  EXPECT_EQ(modified.front(), (Told{3, IN_MODIFY, ""}));
  std::filesystem::remove(in_folder("link"));
  EXPECT_EQ(read_events(again->get()),
            (std::vector<Told>{{4, IN_DELETE_SELF, ""}, {4, IN_IGNORED, ""}}));
  EXPECT_EQ(inotify_add_watch(again->get(), "/", IN_CREATE), 5);
}

TEST_F(InotifyStateTest, OneThatWatchesNothingTellsNothing) {
  auto description = described();
  ASSERT_TRUE(description);
  auto again = make_inotify(*description, O_NONBLOCK);
  ASSERT_TRUE(again);
  EXPECT_TRUE(read_events(again->get()).empty());
  EXPECT_EQ(errno, EAGAIN);
}

TEST_F(InotifyStateTest, WhatHasBeenRenamedIsFoundByItsHandle) {
  if (geteuid() != 0) GTEST_SKIP() << "lacks root: files are opened by handles";
  std::filesystem::create_directory(in_folder("before"));
  ASSERT_EQ(watch(in_folder("before"), IN_CREATE), 1);
  std::filesystem::rename(in_folder("before"), in_folder("after"));
  auto description = described();
  ASSERT_TRUE(description) << description.error().message();
  EXPECT_EQ(paths_of_inotify(*description), std::vector{in_folder("after")});
}

TEST_F(InotifyStateTest, WhatAnotherFileHasTakenThePlaceOfIsNotTakenForIt) {
  touch("file");
  ASSERT_EQ(watch(in_folder("file"), IN_MODIFY), 1);
  UniqueFd keeps(open(in_folder("file").c_str(), O_RDONLY | O_CLOEXEC));
  std::filesystem::remove(in_folder("file"));
  touch("file");
  auto description = described();
  ASSERT_FALSE(description);
  EXPECT_EQ(description.error().errno_or(0), ENOTSUP);
}

TEST_F(InotifyStateTest, WhatIsGoneIsNamed) {
  std::filesystem::create_directory(in_folder("folder"));
  ASSERT_EQ(watch(in_folder("folder"), IN_CREATE), 1);
  auto description = described();
  ASSERT_TRUE(description);
  std::filesystem::remove(in_folder("folder"));
  auto again = make_inotify(*description, 0);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().errno_or(0), ENOENT);
  EXPECT_NE(again.error().message().find(in_folder("folder")), std::string::npos);
}

TEST_F(InotifyStateTest, NonsenseIsRefused) {
  for (const std::string text : {"wd:1", "wd:0 mask:1 follow:1 path:/", "wd:1 mask:1 follow:1 "}) {
    EXPECT_FALSE(make_inotify(text, 0)) << text;
    EXPECT_FALSE(make_inotify(text + std::string(1, '\0'), 0)) << text;
  }
}

TEST(WatchedPathsTest, ThoseOfThreadsThatEndedMakeRoom) {
  WatchedPaths paths;
  for (size_t i = 0; i < WatchedPaths::kMost; ++i) paths.add(0, fmt::format("/{}", i));
  paths.add(gettid(), "/new");
  EXPECT_EQ(paths.of({gettid()}), std::vector<std::string>{"/new"});
  EXPECT_TRUE(paths.of_others({gettid()}).empty());
}

}  // namespace
}  // namespace krg
