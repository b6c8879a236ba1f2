// SPDX-License-Identifier: GPL-2.0-or-later
#include "adaptive_spin.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

using Found = AdaptiveSpin::Found;
using Kind = Patience::Kind;

bool nothing() {
  return false;
}

class AdaptiveSpinTest : public testing::Test {
 protected:
  // Finds nothing until it looks no more: each time it gives up it does so sooner.
  void tire_out() {
    for (int hopeless = 0; hopeless < 100;)
      hopeless = spin_.spin(nothing) == Found::kNoHope ? hopeless + 1 : 0;
  }
  // How many of many turns ended with a look to come.
  int looks_left() {
    int left = 0;
    for (int i = 0; i < 1000; ++i) left += spin_.spin(nothing) == Found::kNothing;
    return left;
  }

  Patience patience_;
  AdaptiveSpin spin_{1, &patience_, true};
};

TEST_F(AdaptiveSpinTest, GivesUpWhenNothingComes) {
  tire_out();
  EXPECT_EQ(looks_left(), 0);
}

TEST_F(AdaptiveSpinTest, LooksOnForWhoWaitsActively) {
  tire_out();
  const Patience::Claim claim = patience_.claim(Kind::kEndless);
  // It blocks for moments only where the core is wanted.
  int left = 0;
  for (int i = 0; i < 10'000 && left < 2000; ++i) left += looks_left();
  EXPECT_GE(left, 2000);
}

TEST_F(AdaptiveSpinTest, BlocksAtOnceForWhoWaitsPassively) {
  EXPECT_EQ(spin_.spin([] { return true; }), Found::kWork);  // a conversation
  Patience::Claim claim = patience_.claim(Kind::kNone);
  EXPECT_EQ(spin_.spin([] { return true; }), Found::kWork);
  EXPECT_EQ(spin_.spin(nothing), Found::kNoHope);
  EXPECT_EQ(looks_left(), 0);
}

}  // namespace
}  // namespace krg
