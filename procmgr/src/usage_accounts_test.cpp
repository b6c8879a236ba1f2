// SPDX-License-Identifier: GPL-2.0-or-later
#include "usage_accounts.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

class FakeTree : public ProcessTree {
 public:
  void add(pid_t pid, pid_t parent) { processes_[pid] = {++clock_, parent}; }
  void reap(pid_t pid) {
    processes_.erase(pid);
    for (auto& [child, process] : processes_)
      if (process.parent == pid) process.parent = 1;
  }
  Place find(pid_t pid) const override {
    auto found = processes_.find(pid);
    return found == processes_.end() ? Place{} : found->second;
  }

 private:
  uint64_t clock_ = 0;
  std::map<pid_t, Place> processes_;
};

struct rusage seconds(long user, long peak_kib = 0) {
  struct rusage usage {};
  usage.ru_utime.tv_sec = user;
  usage.ru_maxrss = peak_kib;
  return usage;
}

constexpr pid_t kShell = 10, kMake = 20, kCompiler = 30, kSecondCompiler = 31;

class UsageAccountsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    tree.add(kShell, 0);
    tree.add(kMake, kShell);
    tree.add(kCompiler, kMake);
    tree.add(kSecondCompiler, kMake);
  }
  long children_seconds(pid_t pid) {
    auto usage = accounts.of_children(pid);
    return usage ? usage->ru_utime.tv_sec : 0;
  }
  FakeTree tree;
  UsageAccounts accounts{tree};
};

TEST_F(UsageAccountsTest, CountsAChildOnceItHasBeenWaitedFor) {
  accounts.child_ends(kCompiler, seconds(5));
  EXPECT_EQ(children_seconds(kMake), 0) << "still a zombie";
  tree.reap(kCompiler);
  EXPECT_EQ(children_seconds(kMake), 5);
  EXPECT_EQ(children_seconds(kMake), 5) << "asked again";
}

TEST_F(UsageAccountsTest, AddsTimesAndTakesTheGreaterPeak) {
  accounts.child_ends(kCompiler, seconds(5, 300));
  accounts.child_ends(kSecondCompiler, seconds(7, 200));
  tree.reap(kCompiler);
  tree.reap(kSecondCompiler);
  auto usage = accounts.of_children(kMake);
  ASSERT_TRUE(usage);
  EXPECT_EQ(usage->ru_utime.tv_sec, 12);
  EXPECT_EQ(usage->ru_maxrss, 300);
}

TEST_F(UsageAccountsTest, GoesUpToTheGrandparentWithTheParent) {
  accounts.child_ends(kCompiler, seconds(5));
  tree.reap(kCompiler);
  EXPECT_EQ(children_seconds(kShell), 0) << "make still runs";
  EXPECT_TRUE(accounts.concerns_waits_of(kShell));
  tree.reap(kMake);
  EXPECT_EQ(accounts.of_waited_child(kShell, kMake)->ru_utime.tv_sec, 5);
  EXPECT_EQ(children_seconds(kShell), 5);
}

TEST_F(UsageAccountsTest, GoesUpOverAProcessThatNeverHadARemoteChildItself) {
  accounts.child_ends(kCompiler, seconds(5));
  tree.reap(kCompiler);
  tree.add(40, kShell);  // keeps the shell busy
  tree.reap(kMake);
  EXPECT_EQ(children_seconds(kShell), 5);
}

TEST_F(UsageAccountsTest, AnswersForTheWaitedChildItself) {
  accounts.child_ends(kCompiler, seconds(5));
  tree.reap(kCompiler);
  auto usage = accounts.of_waited_child(kMake, kCompiler);
  ASSERT_TRUE(usage);
  EXPECT_EQ(usage->ru_utime.tv_sec, 5);
  EXPECT_FALSE(accounts.of_waited_child(kMake, kSecondCompiler));
}

TEST_F(UsageAccountsTest, APidThatIsUsedAgainStartsAnew) {
  accounts.child_ends(kCompiler, seconds(5));
  tree.reap(kCompiler);
  EXPECT_EQ(children_seconds(kMake), 5);
  tree.reap(kMake);
  tree.add(kMake, kShell);
  EXPECT_EQ(children_seconds(kMake), 0);
}

TEST_F(UsageAccountsTest, ClosingTakesWhatABodysChildrenUsedElsewhere) {
  accounts.child_ends(kCompiler, seconds(5));
  tree.reap(kCompiler);
  tree.reap(kMake);
  EXPECT_EQ(accounts.close(kMake)->ru_utime.tv_sec, 5);
  EXPECT_FALSE(accounts.close(kMake));
}

TEST_F(UsageAccountsTest, ManyShortParentsLeaveNothingBehind) {
  constexpr int kParents = 2000;
  for (int i = 0; i < kParents; ++i) {
    tree.add(100, kShell);
    tree.add(101, 100);
    EXPECT_EQ(accounts.child_ends(101, seconds(1)), (std::vector<pid_t>{100, kShell}));
    tree.reap(101);
    tree.reap(100);
  }
  EXPECT_EQ(children_seconds(kShell), kParents);
}

TEST_F(UsageAccountsTest, OrphansCountForNobody) {
  tree.reap(kMake);
  accounts.child_ends(kCompiler, seconds(5));
  tree.reap(kCompiler);
  EXPECT_EQ(children_seconds(kShell), 0);
}

}  // namespace
}  // namespace krg
