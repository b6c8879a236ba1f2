// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_tree.h"

#include <fmt/format.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <string>

#include "image/testing/frozen_process_fixture.h"
#include "process_status.h"

namespace krg {
namespace {

FamilyMember member(pid_t pid, pid_t parent, pid_t group, pid_t session) {
  FamilyMember made;
  made.pid = pid;
  made.parent = parent;
  made.group = group;
  made.session = session;
  return made;
}

class FamilyTreeTest : public testing::FrozenProcessTest {
 protected:
  // The root, which stands as one does that has just execed. Its session and group are outside.
  void SetUp() override {
    FrozenProcessTest::SetUp();
    root = start([] {
      for (;;) pause();
      return 0;
    });
    family.members.push_back(member(root, 0, 0, 0));
    ASSERT_EQ(ptrace(PTRACE_SEIZE, root, nullptr, FrozenThread::kOptions), 0);
    ASSERT_EQ(ptrace(PTRACE_INTERRUPT, root, nullptr, nullptr), 0);
    ASSERT_EQ(TraceStop::wait(root).kind, TraceStop::Kind::kTrap);
  }

  // All have been killed, and their pids are wanted again.
  void TearDown() override {
    tree.reset();
    FrozenProcessTest::TearDown();
    while (waitpid(-1, nullptr, __WALL) > 0) continue;
  }

  Status grow() {
    tree.emplace(*reaper, family, [this](const FamilyMember& leader, FrozenProcess& process) {
      EXPECT_EQ(leader.pid, process.pid());
      leaders.push_back(leader.pid);
      return Status();
    });
    auto thread = FrozenThread::stopped(root);
    return thread ? tree->grow(std::move(*thread)) : thread.error();
  }
  // "parent group session" of a process, as its kernel has them.
  static std::string place_of(pid_t pid) {
    const auto status = read_process_status(pid);
    return status ? fmt::format("{} {} {}", status->parent, status->group, status->session)
                  : "gone";
  }
  static std::string wanted(const FamilyMember& one) {
    return fmt::format("{} {} {}", one.parent, one.group, one.session);
  }

  pid_t root = 0;
  ProcessFamily family;
  std::vector<pid_t> leaders;
  std::optional<FamilyTree> tree;
};

TEST_F(FamilyTreeTest, GivesEachItsPlace) {
  constexpr pid_t kLeader = 500, kEndedSession = 600, kEndedGroup = 700;
  const size_t first = family.members.size();
  family.members.push_back(member(kLeader, root, kLeader, kLeader));
  family.members.push_back(member(501, kLeader, 501, kLeader));
  family.members.push_back(member(502, 501, 501, kLeader));
  family.members.push_back(member(503, kLeader, kEndedGroup, kLeader));
  family.members.push_back(member(504, FamilyMember::kInit, kEndedSession, kEndedSession));
  family.members.push_back(member(505, 504, 505, kEndedSession));
  const Status grown = grow();
  ASSERT_TRUE(grown) << grown.error().message();
  for (size_t i = first; i < family.members.size(); ++i)
    EXPECT_EQ(place_of(family.members[i].pid), wanted(family.members[i])) << family.members[i].pid;
  EXPECT_EQ(leaders, std::vector<pid_t>{kLeader});
  EXPECT_EQ(place_of(kEndedSession), "gone");
  EXPECT_EQ(place_of(kEndedGroup), "gone");
}

// Made before its parent led a session of its own.
TEST_F(FamilyTreeTest, AChildMayBeInTheSessionThatItsParentHasLeft) {
  family.members.push_back(member(500, root, 500, 500));
  family.members.push_back(member(501, 500, 501, 501));
  family.members.push_back(member(502, 501, 500, 500));
  family.members.push_back(member(503, 501, 501, 501));
  const Status grown = grow();
  ASSERT_TRUE(grown) << grown.error().message();
  for (size_t i = 1; i < family.members.size(); ++i)
    EXPECT_EQ(place_of(family.members[i].pid), wanted(family.members[i])) << family.members[i].pid;
  EXPECT_EQ(leaders, (std::vector<pid_t>{500, 501}));
}

TEST_F(FamilyTreeTest, ThoseThatHadEndedWaitToBeWaitedFor) {
  constexpr int kExited = 3 << 8;
  family.members.push_back(member(500, root, 500, 500));
  family.members.push_back(member(501, 500, 500, 500));
  family.members.back().wait_status = kExited;
  family.members.push_back(member(502, 500, 500, 500));
  family.members.back().wait_status = SIGKILL;
  const Status grown = grow();
  ASSERT_TRUE(grown) << grown.error().message();
  const Status ended = tree->end_zombies();
  ASSERT_TRUE(ended) << ended.error().message();
  for (pid_t pid : {501, 502})
    EXPECT_TRUE(run_until([&] {
      const auto status = read_process_status(pid);
      return status && status->is_zombie();
    })) << pid;
  EXPECT_EQ(place_of(501), "500 500 500");
}

TEST_F(FamilyTreeTest, EndsAllWhenAPidIsTaken) {
  family.members.push_back(member(500, root, 0, 0));
  family.members.push_back(member(1, 500, 0, 0));
  const Status grown = grow();
  ASSERT_FALSE(grown);
  EXPECT_EQ(grown.error().errno_or(0), EEXIST);
  tree.reset();
  EXPECT_EQ(end_of(root), 128 + SIGKILL);
}

}  // namespace
}  // namespace krg
