// SPDX-License-Identifier: GPL-2.0-or-later
#include "identity_rules.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

const PidRange kPids(NodeId{1}, 4);
constexpr pid_t kLocal = (1 << 16) + 500, kForeign = (2 << 16) + 500, kOther = (3 << 16) + 7;

TEST(GroupAnswer, ABodysGroupIsChangedByItsShadow) {
  EXPECT_EQ(group_answer({.is_caller = true, .is_body = true, .wanted = kForeign}, kPids),
            GroupAnswer::kAtShadow);
}

TEST(GroupAnswer, NobodyElseMayMoveABody) {
  EXPECT_EQ(group_answer({.is_body = true, .wanted = kForeign}, kPids),
            GroupAnswer::kNoSuchProcess);
}

TEST(GroupAnswer, GroupsOfThisNodeAreTheKernels) {
  EXPECT_EQ(group_answer({.is_caller = true, .wanted = kLocal}, kPids), GroupAnswer::kNative);
}

TEST(GroupAnswer, AProcessElsewhereIsNoChildOfTheCaller) {
  EXPECT_EQ(group_answer({.is_of_this_node = false, .wanted = kLocal}, kPids),
            GroupAnswer::kNoSuchProcess);
}

TEST(GroupAnswer, ADescendantOfABodyStaysWhereItIs) {
  EXPECT_EQ(group_answer({.wanted = kForeign, .virtual_group = kForeign}, kPids),
            GroupAnswer::kDone);
}

TEST(GroupAnswer, ADescendantMayRejoinTheGroupThatItsBodyLeads) {
  EXPECT_EQ(
      group_answer({.wanted = kForeign, .virtual_group = kLocal, .wanted_leader_group = kForeign},
                   kPids),
      GroupAnswer::kNative);
  // The kernel group of that number is a body's that is itself in another group.
  EXPECT_EQ(
      group_answer({.wanted = kForeign, .virtual_group = kLocal, .wanted_leader_group = kOther},
                   kPids),
      GroupAnswer::kRefused);
}

TEST(GroupAnswer, OtherGroupsOfTheOriginCannotBeJoined) {
  EXPECT_EQ(group_answer({.wanted = kOther, .virtual_group = kForeign}, kPids),
            GroupAnswer::kRefused);
}

}  // namespace
}  // namespace krg
