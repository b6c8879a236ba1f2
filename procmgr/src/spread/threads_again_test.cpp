// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/threads_again.h"

#include <gtest/gtest.h>

#include "spread/spread_again.h"

namespace krg {
namespace {

SpreadAgain restarted(const ThreadsAgain& threads) {
  SpreadAgain saved;
  saved.nodes = 3;
  saved.places[17] = NodeId{2};
  saved.bounds[17] = {0, 5};
  saved.teams = "teams";
  auto again = SpreadAgain::parse(with_threads(saved.serialize(), threads));
  EXPECT_TRUE(again);
  return again ? *again : SpreadAgain();
}

TEST(ThreadsAgain, AreWhatTheyWereBesides) {
  const SpreadAgain again = restarted({4, true});
  EXPECT_EQ(again.nodes, 3u);
  EXPECT_EQ(again.places.at(17), NodeId{2});
  EXPECT_EQ(again.bounds.at(17), (std::set<unsigned>{0, 5}));
  EXPECT_EQ(again.teams, "teams");
}

TEST(ThreadsAgain, ComeHomeAsTheRestartSays) {
  EXPECT_EQ(restarted({4, true}).gathers_for(""), "4");
  EXPECT_EQ(restarted({4, true}).gathers_for("1"), "4");
  EXPECT_EQ(restarted({4, false}).gathers_for("1"), "");
}

TEST(ThreadsAgain, ComeHomeAsTheProcessWasStartedElse) {
  EXPECT_EQ(restarted({4, {}}).gathers_for("1"), "4") << "the job that it runs in now is told";
  EXPECT_EQ(restarted({4, {}}).gathers_for(""), "");
  EXPECT_EQ(SpreadAgain().gathers_for("1"), "1") << "no restart";
}

TEST(ThreadsAgain, OthersStayAsTheyAre) {
  EXPECT_EQ(with_threads("", {4, true}), "");
  EXPECT_EQ(with_threads("no state", {4, true}), "no state");
}

}  // namespace
}  // namespace krg
