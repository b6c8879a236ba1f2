// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/fault_signs.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

using std::chrono::microseconds;

class FaultSignsTest : public testing::Test {
 protected:
  static constexpr pid_t kThread = 7, kOther = 8;
  static constexpr uint64_t kWord = 0x5000;

  // After it has run for so long.
  void fault(microseconds ran, uint64_t address, bool write = false, pid_t thread = kThread) {
    constexpr microseconds kWaited{80};
    now_ += ran + kWaited;
    signs_.add({.address = RemoteAddr{address},
                .page = PageIndex{address / kPageBytes},
                .thread = thread,
                .write = write,
                .waited = kWaited},
               now_);
  }
  microseconds spun() const { return microseconds(signs_.sum().spun_ns / 1000); }

  FaultSigns signs_;
  FaultSigns::Clock::time_point now_{};
};

TEST_F(FaultSignsTest, WhoMeetsTheSameWordAgainHasLookedForIt) {
  fault(microseconds(500), kWord);
  EXPECT_EQ(spun(), microseconds(0));
  fault(microseconds(300), kWord);
  fault(microseconds(200), kWord);
  EXPECT_EQ(spun(), microseconds(500));
}

TEST_F(FaultSignsTest, AnotherWordOrAWriteIsWork) {
  fault(microseconds(300), kWord);
  fault(microseconds(300), kWord + 8);
  fault(microseconds(300), kWord);
  fault(microseconds(300), kWord, true);
  fault(microseconds(300), kWord, true);
  EXPECT_EQ(spun(), microseconds(0));
}

TEST_F(FaultSignsTest, WhoHasWrittenAWordMayLookForTheNextOnes) {
  fault(microseconds(300), kWord);
  fault(microseconds(300), kWord, true);
  fault(microseconds(200), kWord);
  EXPECT_EQ(spun(), microseconds(200));
}

TEST_F(FaultSignsTest, SoIsWhatIsBehindAStop) {
  fault(microseconds(300), kWord);
  signs_.stops(kThread);
  fault(microseconds(300), kWord);
  EXPECT_EQ(spun(), microseconds(0));
}

TEST_F(FaultSignsTest, AnotherThreadsFaultsAreItsOwn) {
  fault(microseconds(300), kWord);
  fault(microseconds(100), kWord + 4096, false, kOther);
  fault(microseconds(100), kWord);
  EXPECT_EQ(spun(), microseconds(280)) << "what the other one ran and waited, too";
}

TEST_F(FaultSignsTest, ALongTimeIsMostlyWork) {
  fault(microseconds(0), kWord);
  fault(std::chrono::seconds(1), kWord);
  EXPECT_EQ(spun(), FaultSigns::kLongestLook);
}

TEST_F(FaultSignsTest, WhoWaitsForLongMayLookForAsLong) {
  constexpr microseconds kWaited = 4 * FaultSigns::kLongestLook;
  fault(microseconds(0), kWord);
  now_ += std::chrono::seconds(1);
  signs_.add(
      {.address = RemoteAddr{kWord}, .page = PageIndex{5}, .thread = kThread, .waited = kWaited},
      now_);
  EXPECT_EQ(spun(), kWaited);
}

TEST_F(FaultSignsTest, PagesThatComeOnceDoNotComeBack) {
  for (uint64_t page = 1; page < 100; ++page) fault(microseconds(1), page * kPageBytes);
  for (uint64_t page = 1; page < 100; ++page) fault(microseconds(1), page * kPageBytes, true);
  EXPECT_EQ(signs_.sum().returns, 0u);
  fault(microseconds(1), 5 * kPageBytes);
  fault(microseconds(1), 5 * kPageBytes, true);
  EXPECT_EQ(signs_.sum().returns, 2u);
  EXPECT_EQ(signs_.sum().waited_ns, 2 * 80'000);
}

TEST_F(FaultSignsTest, WhatWasHereHasNotComeBack) {
  for (int i = 0; i < 5; ++i)
    signs_.add(
        {.address = RemoteAddr{kWord}, .page = PageIndex{5}, .thread = kThread, .was_here = true},
        now_);
  EXPECT_EQ(signs_.sum().returns, 0u);
}

}  // namespace
}  // namespace krg
