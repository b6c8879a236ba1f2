// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/wait_policy.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

using Kind = Patience::Kind;

TEST(WaitPolicy, IsWhatTheVariableSays) {
  EXPECT_EQ(patience_of("active"), Kind::kEndless);
  EXPECT_EQ(patience_of(" PASSIVE\t"), Kind::kNone);
  for (const char* other : {"", "  ", "actively", "passive now", "angry"})
    EXPECT_EQ(patience_of(other), Kind::kUsual) << other;
}

TEST(WaitPolicy, HoldsWhileMembersWait) {
  Patience patience;
  const WaitPolicy active{&patience, Kind::kEndless}, passive{&patience, Kind::kNone};
  const WaitPolicy unsaid{&patience, Kind::kUsual};
  Patience::Claim usual = unsaid.begin_wait();
  EXPECT_EQ(patience.now(), Kind::kUsual);
  Patience::Claim first = passive.begin_wait();
  EXPECT_EQ(patience.now(), Kind::kNone);
  Patience::Claim second = active.begin_wait(), third = active.begin_wait();
  EXPECT_EQ(patience.now(), Kind::kEndless) << "the impatient one does not wait longer for it";
  second.drop();
  second.drop();
  EXPECT_EQ(patience.now(), Kind::kEndless);
  third = {};
  EXPECT_EQ(patience.now(), Kind::kNone);
  first = passive.begin_wait();  // anew, before the last wait was told to be over
  EXPECT_EQ(patience.now(), Kind::kNone);
  first.drop();
  EXPECT_EQ(patience.now(), Kind::kUsual);
}

}  // namespace
}  // namespace krg
