// Pages whose task is made when they are asked for already (PageMoves::expect()).
// SPDX-License-Identifier: GPL-2.0-or-later
#include <csignal>

#include "krg/procmgr/page_moves.h"
#include "testing/page_move_fixture.h"

namespace krg {
namespace {

using ExpectedPages = testing::LaterPagesFixture;

TEST_F(ExpectedPages, ComeFromATaskThatIsMadeMeanwhile) {
  start_both();
  expect_move();
  let_target_run();
  await_meeting();
  go_on();  // it waits for a page
  run_a_while();
  EXPECT_FALSE(all_here_.has_value());
  ASSERT_TRUE(serve_expected());
  expect_all_here();
  EXPECT_EQ(exit_code(target_), 0);
}

TEST_F(ExpectedPages, ATaskThatComesTooLateIsFreedAtOnce) {
  start_source([&] { fill(0, pages_); });
  start_target([&] { return 0; });
  expect_move();
  let_target_run();
  EXPECT_EQ(exit_code(target_), 0);
  ASSERT_TRUE(run_until([&] { return all_here_.has_value(); }));
  ASSERT_TRUE(serve_expected());
  ASSERT_TRUE(run_until([&] { return served_.has_value(); }));
  EXPECT_EQ(served_->error().errno_or(0), ESRCH);
}

TEST_F(ExpectedPages, ATaskThatNeverComesIsTheirLoss) {
  start_both();
  expect_move();
  let_target_run();
  await_meeting();
  at_source_.abandon(move_);
  ASSERT_TRUE(run_until([&] { return all_here_.has_value(); }));
  EXPECT_FALSE(*all_here_);
  EXPECT_EQ(exit_code(target_), 128 + SIGKILL);
}

}  // namespace
}  // namespace krg
