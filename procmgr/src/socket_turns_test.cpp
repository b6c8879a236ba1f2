// SPDX-License-Identifier: GPL-2.0-or-later
#include "socket_turns.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

TEST(SocketTurn, PassesOnToTheNextWhoTakesIt) {
  SocketTurn turn;
  std::string woken;
  uint64_t a = 0, b = 0, c = 0;
  a = turn.join([&] { woken += 'a'; });
  EXPECT_FALSE(turn.is_shared());
  b = turn.join([&] { woken += 'b'; });
  c = turn.join([&] { woken += turn.take(c) ? 'C' : 'c'; });
  EXPECT_TRUE(turn.is_shared());
  EXPECT_TRUE(turn.take(a));
  EXPECT_TRUE(turn.take(a));
  EXPECT_FALSE(turn.take(b));
  turn.pass_on(a);  // b does not want it
  EXPECT_EQ(woken, "bC");
  EXPECT_FALSE(turn.take(a));
  turn.release(a);  // which has not got it
  EXPECT_FALSE(turn.take(a));
  turn.pass_on(c);  // who takes it again when nobody else has
  EXPECT_EQ(woken, "bCabC");
}

TEST(SocketTurn, GoesOnWhenItsHolderLeaves) {
  SocketTurn turn;
  uint64_t b = 0;
  const uint64_t a = turn.join([] { FAIL() << "it has left"; });
  b = turn.join([&] { EXPECT_TRUE(turn.take(b)); });
  EXPECT_TRUE(turn.take(a));
  turn.leave(a);
  EXPECT_FALSE(turn.is_shared());
  EXPECT_FALSE(turn.take(a));
  turn.leave(b);
  EXPECT_TRUE(turn.take(turn.join([] {})));
}

TEST(SocketTurns, AreOneForEachSocket) {
  SocketTurns turns;
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const UniqueFd near(ends[0]), far(ends[1]), again(dup(ends[0]));
  const auto turn = turns.of(near.get());
  EXPECT_EQ(turn, turns.of(again.get()));
  EXPECT_NE(turn, turns.of(far.get()));
}

}  // namespace
}  // namespace krg
