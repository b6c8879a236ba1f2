// SPDX-License-Identifier: GPL-2.0-or-later
#include "teams/local_barriers.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

using Members = LocalBarriers::Members;
constexpr uint64_t kTeam = 0x1000, kOther = 0x2000;

void enter(LocalBarriers& barriers, const Members& members) {
  for (pid_t tid : members) barriers.enter(tid, kTeam);
}

TEST(LocalBarriers, HomeIsToldWhenAllHaveCome) {
  LocalBarriers barriers;
  enter(barriers, {1, 2});
  for (int round = 0; round < 2; ++round) {
    const auto first = barriers.arrive(2, kTeam, 0);
    ASSERT_TRUE(first);
    EXPECT_TRUE(first->members.empty());
    const auto last = barriers.arrive(1, kTeam, 0);
    ASSERT_TRUE(last);
    EXPECT_EQ(last->members, (Members{1, 2}));
    EXPECT_FALSE(last->go_on);
    EXPECT_EQ(barriers.go(kTeam, {1, 2}, 0).members, (Members{1, 2}));
    EXPECT_TRUE(barriers.go(kTeam, {1, 2}, 0).members.empty()) << "or they may pass the next one";
    barriers.leave(1);
    barriers.leave(2);
    enter(barriers, {1, 2});
  }
}

TEST(LocalBarriers, WhoIsNoMemberIsToldOfByItself) {
  LocalBarriers barriers;
  EXPECT_FALSE(barriers.arrive(1, kTeam, 0));
  enter(barriers, {1});
  EXPECT_FALSE(barriers.arrive(1, kOther, 0)) << "of a nested region it is the master";
  EXPECT_FALSE(barriers.arrive(2, kTeam, 0));
  EXPECT_TRUE(barriers.go(kOther, {1}, 0).members.empty());
}

TEST(LocalBarriers, WhereTasksAreGivenAwayAllAreToldOfByThemselves) {
  LocalBarriers barriers;
  EXPECT_TRUE(barriers.dissolve(kTeam).empty());
  enter(barriers, {1, 2, 3});
  barriers.arrive(1, kTeam, 0);
  EXPECT_EQ(barriers.dissolve(kTeam), (Members{1}));
  EXPECT_FALSE(barriers.arrive(2, kTeam, 0));
  enter(barriers, {1, 2});
  barriers.arrive(1, kTeam, 0);
  barriers.arrive(2, kTeam, 0);  // home has been told
  EXPECT_EQ(barriers.dissolve(kTeam), (Members{1, 2}));
  EXPECT_TRUE(barriers.go(kTeam, {1, 2}, 0).members.empty());
  enter(barriers, {1});
  EXPECT_TRUE(barriers.arrive(1, kTeam, 0)) << "in the next region as before";
}

TEST(LocalBarriers, TheLastNodesMembersGoOnWithoutHome) {
  LocalBarriers barriers;
  enter(barriers, {1, 2});
  barriers.arrive(1, kTeam, 0);
  EXPECT_TRUE(barriers.go(kTeam, {1, 2}, 7).members.empty());
  const auto last = barriers.arrive(2, kTeam, 0);
  ASSERT_TRUE(last);
  EXPECT_EQ(last->members, (Members{1, 2}));
  EXPECT_TRUE(last->go_on);
  EXPECT_EQ(last->word, 7u);
  barriers.arrive(1, kTeam, 0);
  EXPECT_FALSE(barriers.arrive(2, kTeam, 0)->go_on) << "it was for one barrier";
}

TEST(LocalBarriers, TheWordMayBeOneOfHere) {
  LocalBarriers barriers;
  enter(barriers, {1, 2});
  barriers.go(kTeam, {1, 2}, 0);
  barriers.arrive(1, kTeam, 9);
  EXPECT_EQ(barriers.arrive(2, kTeam, 0)->word, 9u);
  barriers.go(kTeam, {1, 2}, 0);
  barriers.arrive(2, kTeam, 0);
  EXPECT_EQ(barriers.arrive(1, kTeam, 0)->word, 0u);
}

// Home's and this node's words cross.
TEST(LocalBarriers, WhatHomeSaysBeforeItHasHeardOfThemHolds) {
  LocalBarriers barriers;
  enter(barriers, {1, 2});
  barriers.arrive(1, kTeam, 5);
  barriers.arrive(2, kTeam, 0);
  const auto told = barriers.go(kTeam, {1, 2}, 0);
  EXPECT_EQ(told.members, (Members{1, 2}));
  EXPECT_EQ(told.word, 5u) << "home did not know of it";
  barriers.arrive(1, kTeam, 0);
  EXPECT_FALSE(barriers.arrive(2, kTeam, 0)->go_on);
}

// One that enters late: the first one has been told of by itself.
TEST(LocalBarriers, NobodyWaitsForWhoHasBeenToldOf) {
  LocalBarriers barriers;
  enter(barriers, {1});
  EXPECT_EQ(barriers.arrive(1, kTeam, 0)->members, (Members{1}));
  enter(barriers, {2});
  EXPECT_TRUE(barriers.go(kTeam, {1, 2}, 0).members.empty()) << "home did not know of 1 yet";
  const auto second = barriers.arrive(2, kTeam, 0);
  EXPECT_EQ(second->members, (Members{2}));
  EXPECT_FALSE(second->go_on);
  EXPECT_EQ(barriers.go(kTeam, {1}, 0).members, (Members{1}));
  EXPECT_EQ(barriers.go(kTeam, {2}, 0).members, (Members{2}));
  barriers.arrive(1, kTeam, 0);
  EXPECT_EQ(barriers.arrive(2, kTeam, 0)->members, (Members{1, 2}));
}

TEST(LocalBarriers, WhenOneLeavesTheOthersAreToldOfOneByOne) {
  LocalBarriers barriers;
  enter(barriers, {1, 2, 3});
  barriers.arrive(1, kTeam, 0);
  barriers.arrive(2, kTeam, 0);
  barriers.go(kTeam, {1, 2, 3}, 0);
  EXPECT_EQ(barriers.leave(3), (Members{1, 2}));
  EXPECT_FALSE(barriers.arrive(1, kTeam, 0));
  EXPECT_FALSE(barriers.arrive(2, kTeam, 0));
  enter(barriers, {1, 2});
  barriers.arrive(1, kTeam, 0);
  EXPECT_FALSE(barriers.arrive(2, kTeam, 0)->go_on);
}

TEST(LocalBarriers, WhenOneThatWaitsLeavesItIsNotAmongThem) {
  LocalBarriers barriers;
  enter(barriers, {1, 2, 3});
  barriers.arrive(1, kTeam, 0);
  barriers.arrive(2, kTeam, 0);
  EXPECT_EQ(barriers.leave(2), (Members{1}));
  EXPECT_TRUE(barriers.leave(2).empty());
}

// Home has been told of all: who is still here goes on.
TEST(LocalBarriers, WhenOneLeavesAfterHomeWasToldTheOthersGoOn) {
  LocalBarriers barriers;
  enter(barriers, {1, 2});
  barriers.arrive(1, kTeam, 0);
  barriers.arrive(2, kTeam, 0);
  EXPECT_TRUE(barriers.leave(1).empty());
  EXPECT_EQ(barriers.go(kTeam, {1, 2}, 0).members, (Members{1, 2}));
  EXPECT_FALSE(barriers.arrive(2, kTeam, 0));
}

// What home has let them do as those that they were does not hold for fewer.
TEST(LocalBarriers, WhenOneLeavesThatWasToCome) {
  LocalBarriers barriers;
  enter(barriers, {1, 2, 3});
  barriers.go(kTeam, {1, 2}, 0);
  EXPECT_TRUE(barriers.leave(3).empty());
  EXPECT_FALSE(barriers.arrive(1, kTeam, 0));
  EXPECT_FALSE(barriers.arrive(2, kTeam, 0));
}

// Who ends a region does not stop the others' next barrier of another one.
TEST(LocalBarriers, TheEndOfARegion) {
  LocalBarriers barriers;
  for (int region = 0; region < 3; ++region) {
    enter(barriers, {1, 2});
    barriers.arrive(1, kTeam, 0);
    EXPECT_EQ(barriers.arrive(2, kTeam, 0)->members, (Members{1, 2}));
    EXPECT_EQ(barriers.go(kTeam, {1, 2}, 0).members, (Members{1, 2}));
    EXPECT_TRUE(barriers.leave(1).empty());
    EXPECT_TRUE(barriers.leave(2).empty());
  }
}

}  // namespace
}  // namespace krg
