// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <cerrno>

#include "teams/test_members.h"

namespace krg {
namespace {

using test::Answered;
using test::kTeam;
using test::Members;
constexpr uint64_t kOther = 0x2000;

TEST(TeamServer, RegionsBeginWhenTheWorkersAreThereAndEndWhenAllHaveDocked) {
  Members team;
  EXPECT_FALSE(team.call(1, TeamOp::begin, kTeam, {3 | uint64_t{2} << 32, 77}));
  EXPECT_FALSE(team.call(2, TeamOp::dock, kTeam));
  EXPECT_FALSE(team.of(1)) << "a worker is yet to come";
  team.call(3, TeamOp::dock, kTeam);
  ASSERT_TRUE(team.of(1) && team.of(2) && team.of(3));
  EXPECT_FALSE(team.call(1, TeamOp::end, kTeam));
  EXPECT_EQ(team.of(2)->words[3], 1u);
  EXPECT_EQ(team.of(3)->words[3], 2u);
  EXPECT_EQ(team.of(3)->words[4], 77u);
  EXPECT_FALSE(team.call(2, TeamOp::dock, kTeam, {1}));
  EXPECT_FALSE(team.of(1));
  EXPECT_FALSE(team.call(3, TeamOp::dock, kTeam, {1}));
  EXPECT_TRUE(team.of(1));
  team.call(1, TeamOp::dismiss, kTeam);
  EXPECT_EQ(team.result(2), 0);
  EXPECT_EQ(team.result(3), 0);
}

TEST(TeamServer, AMasterThatIsInterruptedBeforeTheWorkersAreThereBeginsOnce) {
  Members team;
  team.call(1, TeamOp::begin, kTeam, {2 | uint64_t{1} << 32, 77});
  team.server.interrupt(1);
  EXPECT_EQ(team.result(1), -EINTR);
  EXPECT_FALSE(team.again(1));
  team.server.interrupt(1);
  team.call(2, TeamOp::dock, kTeam);
  EXPECT_EQ(team.result(2), 1);
  EXPECT_TRUE(team.again(1));
  EXPECT_EQ(team.result(1), 0);
}

TEST(TeamServer, NeighboursAreOnOneNodeAndASmallTeamIsOnAll) {
  Members team;
  // Workers 2, 4, 6 elsewhere; 3, 5, 7 beside the master.
  for (pid_t tid = 2; tid <= 7; ++tid)
    team.call(tid, TeamOp::dock, kTeam, {}, tid % 2 == 0 ? 1 : 0);
  const uint64_t workers = uint64_t{6} << 32;
  team.call(1, TeamOp::begin, kTeam, {6 | workers});
  std::map<uint64_t, unsigned> node_of;
  for (pid_t tid = 2; tid <= 7; ++tid)
    if (team.of(tid)) node_of[team.of(tid)->words[3]] = tid % 2 == 0 ? 1 : 0;
  EXPECT_EQ(node_of, (std::map<uint64_t, unsigned>{{1, 0}, {2, 0}, {3, 1}, {4, 1}, {5, 1}}));
  for (pid_t tid = 2; tid <= 7; ++tid)
    if (team.of(tid)) team.call(tid, TeamOp::dock, kTeam, {1}, tid % 2 == 0 ? 1 : 0);
  team.call(1, TeamOp::end, kTeam);
  team.call(1, TeamOp::begin, kTeam, {2 | workers});
  EXPECT_EQ(team.result(2), 1);  // the only other member is on the other node
}

// Members that are bound keep their numbers on whatever node they are.
TEST(TeamServer, BoundWorkersAreNumberedByAge) {
  Members team;
  const uint64_t bound = uint64_t{4} << 32 | kTeamBound;
  for (pid_t tid : {5, 3, 2, 4}) team.call(tid, TeamOp::dock, kTeam, {}, tid % 2);
  team.call(1, TeamOp::begin, kTeam, {4 | bound});
  const auto ends = [&] {
    std::map<pid_t, uint64_t> numbers;
    for (pid_t tid = 2; tid <= 5; ++tid) {
      if (!team.of(tid)) continue;
      numbers[tid] = team.of(tid)->words[3];
      team.call(tid, TeamOp::dock, kTeam, {1}, tid > 3 ? 1 : 0);
    }
    team.call(1, TeamOp::end, kTeam);
    return numbers;
  };
  EXPECT_EQ(ends(), (std::map<pid_t, uint64_t>{{2, 1}, {3, 2}, {4, 3}}));
  team.call(1, TeamOp::begin, kTeam, {3 | bound});
  EXPECT_EQ(ends(), (std::map<pid_t, uint64_t>{{2, 1}, {3, 2}}));
  team.call(1, TeamOp::begin, kTeam, {3 | uint64_t{4} << 32});
  EXPECT_EQ(ends(), (std::map<pid_t, uint64_t>{{2, 1}, {4, 2}})) << "one of each node";
  // The last node is told of as many as have gone there.
  size_t missing = 0;
  team.server.on_last_node([&](const TeamServer::LastNode& last) {
    missing = last.members.size();
    return true;
  });
  team.call(1, TeamOp::begin, kTeam, {5 | bound});
  for (pid_t tid : {1, 2, 3}) team.call(tid, TeamOp::barrier, kTeam, {0, 0, 0x99});
  EXPECT_EQ(missing, 2u);
}

TEST(TeamServer, BarriersHoldAllAndPassOnAWord) {
  Members team;
  team.region(3);
  EXPECT_FALSE(team.call(1, TeamOp::barrier, kTeam));
  EXPECT_FALSE(team.call(2, TeamOp::barrier, kTeam, {99}));
  team.call(3, TeamOp::barrier, kTeam);
  for (pid_t tid : {1, 2, 3}) {
    ASSERT_EQ(team.result(tid), 0);
    EXPECT_EQ(team.of(tid)->words[3], 99u);
  }
}

// Members 1, 2 on one node; 3, 4 on another one.
TEST(TeamServer, TheLastNodeIsToldWhoIsMissing) {
  Members team;
  std::vector<TeamServer::LastNode> told;
  team.server.on_last_node([&](const TeamServer::LastNode& last) {
    told.push_back(last);
    return true;
  });
  team.call(2, TeamOp::dock, kTeam);
  team.call(3, TeamOp::dock, kTeam, {}, 1);
  team.call(4, TeamOp::dock, kTeam, {}, 1);
  team.call(1, TeamOp::begin, kTeam, {4 | uint64_t{3} << 32, 77});
  for (int round = 0; round < 2; ++round) {
    told.clear();
    team.call(1, TeamOp::barrier, kTeam, {7, 0, 0x99});
    EXPECT_TRUE(told.empty()) << "two nodes are missing";
    team.call(2, TeamOp::barrier, kTeam, {0, 0, 0x99});
    ASSERT_EQ(told.size(), 1u);
    EXPECT_EQ(told[0].team, kTeam);
    EXPECT_EQ(told[0].node, NodeId{1});
    EXPECT_EQ(told[0].members, (std::vector<pid_t>{3, 4}));
    EXPECT_EQ(told[0].word, 7u);
    team.call(3, TeamOp::barrier, kTeam, {0, 0, 0x99}, 1);
    EXPECT_EQ(told.size(), 1u);
    team.call(4, TeamOp::barrier, kTeam, {0, 0, 0x99}, 1);
    ASSERT_EQ(told.size(), 2u);
    EXPECT_TRUE(told[1].members.empty()) << "it is over";
    EXPECT_EQ(team.of(1)->words[3], 7u);
  }
}

TEST(TeamServer, WhoDoesNotWantToBeToldNowIsAskedAgain) {
  Members team;
  unsigned asked = 0;
  team.server.on_last_node([&](const TeamServer::LastNode&) { return ++asked > 1; });
  for (pid_t tid = 2; tid <= 4; ++tid) team.call(tid, TeamOp::dock, kTeam, {}, 1);
  team.call(1, TeamOp::begin, kTeam, {4 | uint64_t{3} << 32, 77});
  for (pid_t tid = 1; tid <= 3; ++tid)
    team.call(tid, TeamOp::barrier, kTeam, {0, 0, 0x99}, tid == 1 ? 0 : 1);
  EXPECT_EQ(asked, 2u);
}

TEST(TeamServer, NobodyIsToldOfABarrierThatMayBeCancelled) {
  Members team;
  unsigned asked = 0;
  team.server.on_last_node([&](const TeamServer::LastNode&) { return ++asked > 0; });
  team.call(2, TeamOp::dock, kTeam, {}, 1);
  team.call(1, TeamOp::begin, kTeam, {2 | uint64_t{1} << 32, 77});
  team.call(1, TeamOp::barrier, kTeam, {0, 1, 0x99});
  EXPECT_EQ(asked, 0u);
}

TEST(TeamServer, ACallThatIsMadeAgainCountsOnce) {
  Members team;
  team.region(2);
  EXPECT_FALSE(team.call(1, TeamOp::barrier, kTeam));
  team.server.interrupt(1);
  EXPECT_EQ(team.result(1), -EINTR);
  EXPECT_FALSE(team.server.is_waiting(1));
  EXPECT_FALSE(team.again(1));
  team.server.interrupt(1);
  team.call(2, TeamOp::barrier, kTeam);  // while member 1 is away from its call
  EXPECT_EQ(team.result(2), 0);
  team.again(1);
  EXPECT_EQ(team.result(1), 0);
  // An answer that was lost on its way.
  team.call(2, TeamOp::next, kTeam, {0, 10, 2, 2, 1});
  ASSERT_EQ(team.result(2), 1);
  const Answered first = *team.of(2);
  EXPECT_EQ(team.again(2)->words, first.words);
  EXPECT_EQ(team.call(2, TeamOp::next, kTeam, {0, 10, 2, 2, 1})->words[3], first.words[4]);
}

TEST(TeamServer, ACancelledRegionLeavesItsBarriers) {
  Members team;
  team.region(3);
  team.call(1, TeamOp::barrier, kTeam, {0, 1});
  team.call(2, TeamOp::cancel, kTeam);
  EXPECT_EQ(team.result(1), 1);
  EXPECT_EQ(team.call(3, TeamOp::barrier, kTeam, {0, 1})->result, 1);
}

TEST(TeamServer, ChunksCoverALoopOnce) {
  for (const auto& [schedule, chunk, wanted] :
       std::vector<std::array<uint64_t, 3>>{{2, 1, 1}, {2, 3, 64}, {3, 4, 1}, {3 | 256, 4, 1}}) {
    Members team;
    team.region(3);
    uint64_t at = 0;
    unsigned finished = 0;
    for (unsigned i = 0; finished < 3; ++i) {
      const auto& found = team.call(static_cast<pid_t>(1 + i % 3), TeamOp::next, kTeam,
                                    {0, 1001, chunk, schedule, wanted});
      if (found->result == 0) {
        ++finished;
        continue;
      }
      EXPECT_EQ(found->words[3], at);
      EXPECT_GT(found->words[4], at);
      EXPECT_TRUE(schedule != 2 || found->words[4] % chunk == 0 || found->words[4] == 1001);
      at = found->words[4];
    }
    EXPECT_EQ(at, 1001u);
    // The next loop is another one, even of the same number.
    EXPECT_EQ(team.call(1, TeamOp::next, kTeam, {0, 5, 5, 2, 1})->words[4], 5u);
  }
}

TEST(TeamServer, TheFirstExecutesASingle) {
  Members team;
  team.region(2);
  EXPECT_EQ(team.call(2, TeamOp::single, kTeam, {0})->result, 1);
  EXPECT_EQ(team.call(1, TeamOp::single, kTeam, {0})->result, 0);
  EXPECT_EQ(team.call(1, TeamOp::single, kTeam, {1})->result, 1);
  EXPECT_EQ(team.call(2, TeamOp::single, kTeam, {1})->result, 0);
}

TEST(TeamServer, CountersAndPublishedWordsAreAwaited) {
  Members team;
  team.region(3);
  EXPECT_FALSE(team.call(1, TeamOp::await, kTeam, {4, 0, 10}));
  team.call(2, TeamOp::post, kTeam, {4, 0, 9});
  EXPECT_FALSE(team.of(1));
  team.call(2, TeamOp::post, kTeam, {4, 0, 10});
  EXPECT_TRUE(team.of(1));
  EXPECT_TRUE(team.call(3, TeamOp::await, kTeam, {4, 0, 10}));

  EXPECT_EQ(team.call(2, TeamOp::claim, kTeam, {5})->result, 1);
  EXPECT_FALSE(team.call(1, TeamOp::claim, kTeam, {5}));
  team.call(2, TeamOp::publish, kTeam, {5, 123});
  EXPECT_EQ(team.of(1)->words[3], 123u);
  EXPECT_EQ(team.call(3, TeamOp::claim, kTeam, {5})->words[3], 123u);
  EXPECT_EQ(team.call(1, TeamOp::leave, kTeam, {5})->result, 0);
  EXPECT_EQ(team.call(2, TeamOp::leave, kTeam, {5})->result, 0);
  EXPECT_EQ(team.call(3, TeamOp::leave, kTeam, {5})->result, 1);
}

TEST(TeamServer, LocksAreHandedOnInTurn) {
  Members threads;
  EXPECT_EQ(threads.call(1, TeamOp::lock, kOther, {0})->result, 1);
  EXPECT_EQ(threads.call(2, TeamOp::try_lock, kOther, {0})->result, 0);
  EXPECT_FALSE(threads.call(2, TeamOp::lock, kOther, {0}));
  EXPECT_FALSE(threads.call(3, TeamOp::lock, kOther, {0}));
  threads.call(1, TeamOp::unlock, kOther);
  EXPECT_TRUE(threads.of(2));
  EXPECT_FALSE(threads.of(3));
  threads.call(2, TeamOp::unlock, kOther);
  EXPECT_TRUE(threads.of(3));
  threads.call(3, TeamOp::unlock, kOther);
  // Nestable.
  EXPECT_EQ(threads.call(1, TeamOp::lock, kOther, {7})->result, 1);
  EXPECT_EQ(threads.call(1, TeamOp::lock, kOther, {7})->result, 2);
  EXPECT_EQ(threads.call(2, TeamOp::try_lock, kOther, {8})->result, 0);
  threads.call(1, TeamOp::unlock, kOther);
  EXPECT_FALSE(threads.call(2, TeamOp::lock, kOther, {8}));
  threads.call(1, TeamOp::unlock, kOther);
  EXPECT_TRUE(threads.of(2));
}

TEST(TeamServer, AThreadThatIsGoneWaitsForNothing) {
  Members threads;
  threads.call(1, TeamOp::lock, kOther, {0});
  threads.call(2, TeamOp::lock, kOther, {0});
  threads.call(3, TeamOp::lock, kOther, {0});
  threads.server.gone(2);
  threads.call(1, TeamOp::unlock, kOther);
  EXPECT_FALSE(threads.of(2));
  EXPECT_TRUE(threads.of(3));
}

// Everything is under way: calls that wait, a loop, a lock, a published word, a counter.
TEST(TeamServer, GoesOnAsAnotherOneFromWhatItHasSaved) {
  Members before, after;
  EXPECT_TRUE(before.server.is_unused());
  before.region(3);
  before.call(1, TeamOp::next, kTeam, {7, 100, 10, 0, 1});
  before.call(1, TeamOp::lock, kOther, {1});
  EXPECT_FALSE(before.call(2, TeamOp::lock, kOther, {2}));
  before.call(3, TeamOp::claim, kTeam, {8});
  before.call(3, TeamOp::publish, kTeam, {8, 4711});
  EXPECT_FALSE(before.call(3, TeamOp::barrier, kTeam));
  EXPECT_FALSE(before.server.is_unused());
  const std::string saved = before.server.save();

  after = before;  // its threads, with the calls that they have made
  after.server = TeamServer();
  ASSERT_TRUE(after.server.restore(saved));
  EXPECT_EQ(after.server.save(), saved);
  EXPECT_EQ(after.server.largest_team(), (std::vector<pid_t>{1, 2, 3}));
  EXPECT_FALSE(after.again(2));
  EXPECT_FALSE(after.again(3));
  after.call(1, TeamOp::unlock, kOther);
  EXPECT_EQ(after.result(2), 1) << "it has the lock now";
  EXPECT_EQ(after.call(2, TeamOp::claim, kTeam, {8})->words[3], 4711u);
  EXPECT_EQ(after.call(2, TeamOp::next, kTeam, {7, 100, 10, 0, 1})->words[3], 10u);
  after.call(1, TeamOp::barrier, kTeam);
  EXPECT_FALSE(after.of(3));
  after.call(2, TeamOp::barrier, kTeam);
  EXPECT_EQ(after.result(3), 0);

  for (size_t bytes = 0; bytes < saved.size(); ++bytes) {
    TeamServer cut;
    EXPECT_FALSE(cut.restore(std::string_view(saved).substr(0, bytes))) << bytes;
  }
}

TEST(TeamServer, ACallThatWasAnsweredBeforeItWasSavedIsAnsweredAlikeAfterwards) {
  Members team;
  team.region(2);
  team.call(1, TeamOp::barrier, kTeam, {55});
  team.call(2, TeamOp::barrier, kTeam);
  const std::string saved = team.server.save();
  team.server = TeamServer();
  ASSERT_TRUE(team.server.restore(saved));
  EXPECT_EQ(team.again(2)->words[3], 55u) << "its answer was on its way";
}

}  // namespace
}  // namespace krg
