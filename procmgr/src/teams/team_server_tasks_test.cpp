// Tasks that members give each other.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <set>

#include "teams/test_members.h"

namespace krg {
namespace {

using test::kTeam;
using test::Members;

constexpr uint64_t kTask = 0x7000, kParent = 0x20000, kGroup = 0x30000;

// The words of give_task from 3 on.
std::vector<uint64_t> task(unsigned number, uint64_t parent = kParent, uint64_t group = 0,
                           uint64_t ancestor = 0, uint64_t bits = 0) {
  return {(kTask + 64 * number) | bits, 0x1234, 0x5678, parent, group, ancestor, 1, 2, 3};
}
uint64_t key(unsigned number) {
  return kTask + 64 * number;
}

// Which task a member has been told to run; -1: none.
int given(Members& team, pid_t tid) {
  const auto& told = team.of(tid);
  if (!told || (told->result != kTeamTask && told->result != kTeamOwnTask)) return -1;
  return static_cast<int>(((told->words[3] & ~kTeamTaskBits) - kTask) / 64);
}

TEST(TeamServerTasks, WhoeverWaitsForTheOthersIsGivenOne) {
  Members team;
  team.region(3);
  EXPECT_FALSE(team.call(2, TeamOp::barrier, kTeam));
  EXPECT_FALSE(team.call(3, TeamOp::dock, kTeam, {1}));
  const auto& told = team.call(1, TeamOp::give_task, kTeam, task(0));
  EXPECT_EQ(told->result, 1);
  team.call(1, TeamOp::give_task, kTeam, task(1));
  EXPECT_EQ((std::set{given(team, 2), given(team, 3)}), (std::set{0, 1}));
  for (unsigned word : {4u, 5u, 9u, 10u, 11u})
    EXPECT_EQ(team.of(2)->words[word], team.of(3)->words[word]);
  EXPECT_EQ(team.of(2)->words[11], 3u);
}

TEST(TeamServerTasks, OneThatComesLaterTakesItsOwnNodesFirst) {
  Members team;
  team.region(4, 2);
  team.call(1, TeamOp::give_task, kTeam, task(0));
  team.call(3, TeamOp::give_task, kTeam, task(1), 1);
  EXPECT_EQ((team.call(4, TeamOp::barrier, kTeam, {}, 1), given(team, 4)), 1);
  EXPECT_EQ((team.call(3, TeamOp::wait_for_task, kTeam, {}, 1), given(team, 3)), 0);
}

TEST(TeamServerTasks, AsManyWaitAsAreOfUse) {
  Members team;
  team.region(2);
  unsigned taken = 0;
  while (taken < 100 && team.call(1, TeamOp::give_task, kTeam, task(taken))->result == 1) ++taken;
  EXPECT_EQ(taken, 4u);
  EXPECT_EQ(
      team.call(1, TeamOp::give_task, kTeam, task(taken, kParent, 0, 0, kTeamTaskForced))->result,
      1);
}

TEST(TeamServerTasks, AnOwnerGetsBackWhatNobodyHasTaken) {
  Members team;
  team.region(2);
  team.call(1, TeamOp::give_task, kTeam, task(0));
  team.call(1, TeamOp::wait_for_task, kTeam, {kTeamChildren, kParent});
  EXPECT_EQ(team.result(1), kTeamOwnTask);
  EXPECT_EQ(given(team, 1), 0);
  EXPECT_FALSE(team.call(2, TeamOp::barrier, kTeam));
}

TEST(TeamServerTasks, TheOwnerIsToldWhatIsOver) {
  Members team;
  team.region(2);
  team.call(2, TeamOp::barrier, kTeam);
  team.call(1, TeamOp::give_task, kTeam, task(0));
  EXPECT_FALSE(team.call(1, TeamOp::wait_for_task, kTeam, {kTeamChildren, kParent}));
  team.call(2, TeamOp::task_over, kTeam, {key(0) | kTeamBodyOver});
  ASSERT_EQ(team.result(1), kTeamNews);
  EXPECT_EQ(team.of(1)->words[3], key(0) | kTeamBodyOver);
  EXPECT_EQ(team.of(1)->words[4], 0u);
  team.call(2, TeamOp::task_over, kTeam, {key(0) | kTeamAllOver});
  const auto& told = team.call(1, TeamOp::give_task, kTeam, task(1));
  EXPECT_EQ(told->words[3], key(0) | kTeamAllOver) << "with the answer to another call";
  EXPECT_FALSE(team.call(1, TeamOp::wait_for_task, kTeam, {kTeamChildren, 1}));
}

TEST(TeamServerTasks, InsideATaskOnlyWhatDescendsFromItIsRun) {
  Members team;
  team.region(4);
  // Member 2 runs task 0 of member 1, a child of kParent in kGroup, and gives its child, task 1.
  team.call(2, TeamOp::barrier, kTeam);
  team.call(1, TeamOp::give_task, kTeam, task(0, kParent, kGroup));
  ASSERT_EQ(given(team, 2), 0);
  EXPECT_FALSE(team.call(1, TeamOp::wait_for_task, kTeam, {kTeamChildren, kParent + 64}));
  EXPECT_FALSE(team.call(3, TeamOp::wait_for_task, kTeam, {kTeamGroup, kGroup + 64}));
  team.call(2, TeamOp::give_task, kTeam, task(1, 0x40000, 0x50000, key(0)));
  EXPECT_FALSE(team.of(1)) << "it waits for children of another task";
  EXPECT_FALSE(team.of(3)) << "it waits for another group";
  EXPECT_EQ((team.call(4, TeamOp::wait_for_task, kTeam, {kTeamGroup, kGroup}), given(team, 4)), 1);
  team.call(4, TeamOp::give_task, kTeam, task(2, 0x40000, 0x50000, key(1)));
  team.call(2, TeamOp::wait_for_task, kTeam, {kTeamChildren, kParent});
  EXPECT_EQ(given(team, 2), 2) << "it descends from what descends from a child";
}

TEST(TeamServerTasks, WhoWaitsWithTasksThatOthersMayRunGivesThem) {
  Members team;
  team.region(2);
  team.call(1, TeamOp::give_task, kTeam, task(0, kParent));
  team.call(2, TeamOp::barrier, kTeam);
  ASSERT_EQ(given(team, 2), 0);
  EXPECT_FALSE(team.call(1, TeamOp::wait_for_task, kTeam, {kTeamChildren, kParent, 1}))
      << "nobody else waits";
  team.call(2, TeamOp::wait_for_task, kTeam, {kTeamChildren, kParent + 64});
  EXPECT_EQ(team.result(1), kTeamNews);
  EXPECT_EQ(team.of(1)->words[3], 0u);
  team.call(1, TeamOp::give_task, kTeam, task(1, kParent + 64, 0, 0, kTeamTaskForced));
  EXPECT_EQ(given(team, 2), 1);
}

TEST(TeamServerTasks, ABarrierAndTheEndWaitForWhoRunsOne) {
  Members team;
  team.region(3);
  team.call(2, TeamOp::barrier, kTeam);
  team.call(3, TeamOp::barrier, kTeam);
  team.call(1, TeamOp::give_task, kTeam, task(0));
  const pid_t runner = given(team, 2) == 0 ? 2 : 3;
  team.call(1, TeamOp::barrier, kTeam);
  EXPECT_FALSE(team.of(1));
  team.call(runner, TeamOp::barrier, kTeam);
  for (pid_t tid : {1, 2, 3}) EXPECT_EQ(team.result(tid), 0);

  team.call(2, TeamOp::dock, kTeam, {1});
  team.call(3, TeamOp::dock, kTeam, {1});
  team.call(1, TeamOp::give_task, kTeam, task(0));
  const pid_t last = given(team, 2) == 0 ? 2 : 3;
  EXPECT_FALSE(team.call(1, TeamOp::end, kTeam));
  team.call(last, TeamOp::give_task, kTeam, task(1));
  EXPECT_EQ(team.result(1), kTeamTask) << "one that waits for the end";
  team.call(1, TeamOp::end, kTeam);
  EXPECT_FALSE(team.of(1));
  team.call(last, TeamOp::dock, kTeam, {1});
  EXPECT_EQ(team.result(1), 0);
}

TEST(TeamServerTasks, AWorkerThatIsNotInTheRegionRunsNone) {
  Members team;
  team.region(3);
  team.call(2, TeamOp::dock, kTeam, {1});
  team.call(3, TeamOp::dock, kTeam, {1});
  team.call(1, TeamOp::end, kTeam);
  team.call(1, TeamOp::begin, kTeam, {2 | uint64_t{2} << 32, 77});
  const pid_t outside = team.result(2) == 1 ? 3 : 2;
  team.call(1, TeamOp::give_task, kTeam, task(0));
  EXPECT_FALSE(team.of(outside));
}

TEST(TeamServerTasks, WhoIsToldWithOthersIsGivenOneWhenItCallsAlone) {
  Members team;
  std::vector<uint64_t> told;
  team.server.on_first_task([&](uint64_t of) { told.push_back(of); });
  team.region(2, 1);
  TeamWords words{};
  words[0] = static_cast<uint64_t>(TeamOp::barrier);
  words[1] = 1000;
  words[2] = kTeam;
  std::optional<int64_t> together, alone;
  team.server.call(
      2, NodeId{1}, words, [&](int64_t result, const TeamWords&) { together = result; },
      TeamServer::Told::kTogether);
  team.call(1, TeamOp::give_task, kTeam, task(0));
  team.call(1, TeamOp::give_task, kTeam, task(1));
  EXPECT_EQ(told, (std::vector<uint64_t>{kTeam})) << "once in a region";
  EXPECT_FALSE(together);
  team.server.call(2, NodeId{1}, words, [&](int64_t result, const TeamWords&) { alone = result; });
  EXPECT_EQ(alone, kTeamTask);
  EXPECT_FALSE(together);
}

TEST(TeamServerTasks, AnEventsFulfilmentGoesToTheTasksMember) {
  Members team;
  team.region(3);
  team.call(3, TeamOp::wait_for_task, kTeam);
  team.call(1, TeamOp::fulfill, kTeam, {key(0), 2});
  ASSERT_EQ(team.result(3), kTeamNews);
  EXPECT_EQ(team.of(3)->words[3], key(0) | kTeamFulfilled);
  team.call(1, TeamOp::fulfill, kTeam, {key(0), 9});  // there is no such member
}

TEST(TeamServerTasks, ATaskThatWasGivenWhileItsTakerWasInterruptedIsNotLost) {
  Members team;
  team.region(2);
  team.call(2, TeamOp::barrier, kTeam);
  team.server.interrupt(2);
  team.call(1, TeamOp::give_task, kTeam, task(0));
  team.again(2);
  EXPECT_EQ(given(team, 2), 0);
}

TEST(TeamServerTasks, TheyGoOnAsAnotherServersFromWhatWasSaved) {
  Members before, after;
  before.region(3);
  before.call(2, TeamOp::barrier, kTeam);
  before.call(1, TeamOp::give_task, kTeam, task(0));
  before.call(1, TeamOp::give_task, kTeam, task(1));
  before.call(2, TeamOp::task_over, kTeam, {key(0) | kTeamBodyOver});
  const std::string saved = before.server.save();
  after = before;
  after.server = TeamServer();
  ASSERT_TRUE(after.server.restore(saved));
  EXPECT_EQ(after.server.save(), saved);
  EXPECT_EQ((after.call(3, TeamOp::barrier, kTeam), given(after, 3)), 1);
  after.call(1, TeamOp::wait_for_task, kTeam);
  EXPECT_EQ(after.of(1)->words[3], key(0) | kTeamBodyOver);
  for (size_t bytes = 0; bytes < saved.size(); ++bytes) {
    TeamServer cut;
    EXPECT_FALSE(cut.restore(std::string_view(saved).substr(0, bytes))) << bytes;
  }
}

// Who comes is not compared with all who wait: that would take minutes here.
TEST(TeamServerTasks, ThousandsOfMembersGetSome) {
  constexpr unsigned kMembers = 4000;
  Members team;
  team.region(kMembers, kMembers / 2);
  for (unsigned i = 2; i <= kMembers; ++i) team.call(pid_t(i), TeamOp::dock, kTeam, {1});
  for (unsigned i = 0; i + 1 < kMembers; ++i)
    ASSERT_EQ(team.call(1, TeamOp::give_task, kTeam, task(i))->result, 1) << i;
  std::set<int> all;
  for (unsigned i = 2; i <= kMembers; ++i) all.insert(given(team, pid_t(i)));
  EXPECT_EQ(all.size(), kMembers - 1);
  EXPECT_FALSE(all.contains(-1));
  team.call(1, TeamOp::end, kTeam);
  for (unsigned i = 2; i <= kMembers; ++i) {
    team.call(pid_t(i), TeamOp::task_over, kTeam,
              {key(unsigned(given(team, pid_t(i)))) | kTeamBodyOver | kTeamAllOver});
    team.call(pid_t(i), TeamOp::dock, kTeam, {1});
  }
  EXPECT_TRUE(team.of(1));
}

}  // namespace
}  // namespace krg
