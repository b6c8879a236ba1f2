// SPDX-License-Identifier: GPL-2.0-or-later
#include "load_book.h"

#include <gtest/gtest.h>

#include <map>

namespace krg {
namespace {

using std::chrono::milliseconds;

class LoadBookTest : public testing::Test {
 protected:
  NodeId choose() { return book_.choose(GlobalPid{next_pid_++}, online_, now_); }
  void report(uint16_t node, unsigned running, unsigned cores = 1) {
    book_.set_report(NodeId{node}, running, cores, now_);
  }
  double load(uint16_t node) { return book_.load(NodeId{node}, now_); }

  LoadBook book_{NodeId{1}, 4};
  LoadBook::Time now_{milliseconds(1'000'000)};
  std::function<bool(NodeId)> online_ = [](NodeId) { return true; };
  pid_t next_pid_ = 100;
};

TEST_F(LoadBookTest, TiesGoToThisNodeFirstThenInTurn) {
  std::vector<unsigned> order;
  for (int i = 0; i < 8; ++i) order.push_back(choose().value);
  EXPECT_EQ(order[0], 1u);
  std::map<unsigned, int> count;
  for (unsigned node : order) ++count[node];
  for (unsigned node = 0; node < 4; ++node) EXPECT_EQ(count[node], 2) << node;
}

TEST_F(LoadBookTest, EqualRemoteNodesTakeTurnsOverTime) {
  report(1, 5);
  std::map<unsigned, int> count;
  for (int i = 0; i < 9; ++i) {
    NodeId node = choose();
    ++count[node.value];
    book_.ended(GlobalPid{next_pid_ - 1});
  }
  EXPECT_EQ(count[0], 3);
  EXPECT_EQ(count[2], 3);
  EXPECT_EQ(count[3], 3);
}

TEST_F(LoadBookTest, LeastReportedLoadWins) {
  report(0, 3);
  report(1, 2);
  report(2, 1);
  report(3, 2);
  EXPECT_EQ(choose(), NodeId{2});
}

TEST_F(LoadBookTest, LoadIsPerCore) {
  report(0, 4, 8);
  report(1, 1, 1);
  report(2, 1, 1);
  report(3, 1, 1);
  EXPECT_EQ(choose(), NodeId{0});
}

TEST_F(LoadBookTest, OfflineNodesAreNeverChosen) {
  online_ = [](NodeId n) { return n == NodeId{3}; };
  for (int i = 0; i < 5; ++i) EXPECT_EQ(choose(), NodeId{3});
  online_ = [](NodeId) { return false; };
  EXPECT_EQ(choose(), NodeId{1});
}

TEST_F(LoadBookTest, AnEndedPlacementThatWasNotReportedYetIsTakenBack) {
  report(1, 1);
  NodeId node = choose();
  EXPECT_EQ(load(node.value), 1);
  book_.ended(GlobalPid{100});
  EXPECT_EQ(load(node.value), 0);
  book_.ended(GlobalPid{100});
  EXPECT_EQ(load(node.value), 0);
}

TEST_F(LoadBookTest, AReportReplacesThePlacementsThatItHasSeen) {
  report(1, 9);
  NodeId node = choose();
  now_ += LoadBook::kSettleTime;
  report(node.value, 1);
  EXPECT_EQ(load(node.value), 1);
  book_.ended(GlobalPid{100});
  EXPECT_EQ(load(node.value), 0) << "the running process of the report has ended since";
}

TEST_F(LoadBookTest, AReportTakenTooSoonDoesNotHideAPlacement) {
  report(1, 9);
  NodeId node = choose();
  now_ += LoadBook::kSettleTime / 2;
  report(node.value, 0);
  EXPECT_EQ(load(node.value), 1);
}

TEST_F(LoadBookTest, AChoiceForThisNodeIsForgottenOnceSamplesShowIt) {
  EXPECT_EQ(choose(), NodeId{1});
  EXPECT_EQ(load(1), 1);
  now_ += LoadBook::kSettleTime;
  report(1, 0);
  EXPECT_EQ(load(1), 0);
}

TEST_F(LoadBookTest, AChoiceForAForkerIsItsChilds) {
  const GlobalPid forker{7}, child{8};
  ASSERT_EQ(book_.choose(forker, online_, now_), NodeId{1});
  book_.becomes(forker, child);
  book_.ended(forker);
  EXPECT_EQ(load(1), 1);
  book_.ended(child);
  EXPECT_EQ(load(1), 0);
}

TEST_F(LoadBookTest, OldReportsSayNothing) {
  report(2, 7);
  EXPECT_EQ(load(2), 7);
  now_ += LoadBook::kReportLifetime;
  EXPECT_EQ(load(2), 0);
}

TEST_F(LoadBookTest, ReportsThatArriveLateAreIgnored) {
  report(2, 7);
  book_.set_report(NodeId{2}, 1, 1, now_ - milliseconds(10));
  EXPECT_EQ(load(2), 7);
}

TEST(LoadBook, ReliefIsANodeThatIsLessLoadedWithOneMore) {
  const auto everybody = [](NodeId) { return true; };
  LoadBook book(NodeId{0}, 3);
  const LoadBook::Time now{std::chrono::hours(1)};
  book.set_report(NodeId{0}, 2, 1, now);
  EXPECT_EQ(book.relief(0.25, everybody, now), std::nullopt) << "nothing is known of the others";
  book.set_report(NodeId{1}, 1, 1, now);
  EXPECT_EQ(book.relief(0.25, everybody, now), std::nullopt) << "they would only change places";
  book.set_report(NodeId{2}, 0, 1, now);
  EXPECT_EQ(book.relief(0.25, everybody, now), NodeId{2});
  EXPECT_EQ(book.relief(1.0, everybody, now), NodeId{2}) << "lower by just as much";
  EXPECT_EQ(book.relief(1.25, everybody, now), std::nullopt);
  EXPECT_EQ(book.relief(
                0.25, [](NodeId node) { return node != NodeId{2}; }, now),
            std::nullopt);
  EXPECT_EQ(book.relief(0.25, everybody, now + LoadBook::kReportLifetime), std::nullopt);
}

}  // namespace
}  // namespace krg
