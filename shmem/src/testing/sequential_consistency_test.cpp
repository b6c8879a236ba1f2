// The checker itself: litmus tests whose verdicts are known.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "sequential_consistency.h"

#include <gtest/gtest.h>

namespace krg::kddm {
namespace {

constexpr unsigned kX = 0, kY = 1;

class SequentialConsistency : public ::testing::Test {
 protected:
  SequentialConsistency() {
    history_.begin_object(kX, 1);
    history_.begin_object(kY, 1);
  }
  void read(unsigned thread, unsigned object, uint64_t value) {
    history_.record({thread, object, value, AccessHistory::kNothing});
  }
  void write(unsigned thread, unsigned object, uint64_t read, uint64_t value) {
    history_.record({thread, object, read, value});
  }
  AccessHistory history_;
};

TEST_F(SequentialConsistency, AllowsWhatOneOrderExplains) {
  write(0, kX, 1, 2);
  read(0, kY, 1);
  read(1, kX, 1);  // before thread 0's write, although recorded after it
  write(1, kY, 1, 2);
  read(1, kX, 2);
  read(2, kY, 2);
  read(2, kX, 2);
  EXPECT_EQ(history_.violation(), "");
}

TEST_F(SequentialConsistency, ForbidsStoreBuffering) {
  write(0, kX, 1, 2);
  read(0, kY, 1);
  write(1, kY, 1, 2);
  read(1, kX, 1);
  EXPECT_NE(history_.violation().find("no order"), std::string::npos) << history_.violation();
}

TEST_F(SequentialConsistency, ForbidsStaleMessagePassing) {
  write(0, kX, 1, 2);
  write(0, kY, 1, 2);
  read(1, kY, 2);
  read(1, kX, 1);
  EXPECT_NE(history_.violation().find("no order"), std::string::npos);
}

TEST_F(SequentialConsistency, ForbidsReadersThatDisagree) {  // IRIW
  write(0, kX, 1, 2);
  write(1, kY, 1, 2);
  read(2, kX, 2);
  read(2, kY, 1);
  read(3, kY, 2);
  EXPECT_EQ(history_.violation(), "");
  read(3, kX, 1);
  EXPECT_NE(history_.violation().find("no order"), std::string::npos);
}

TEST_F(SequentialConsistency, ForbidsGoingBackInOneObject) {
  write(0, kX, 1, 2);
  read(1, kX, 2);
  read(1, kX, 1);
  EXPECT_NE(history_.violation().find("thread 1 reads object 0 = 1"), std::string::npos)
      << history_.violation();
}

TEST_F(SequentialConsistency, ForbidsLostWritesAndValuesFromNowhere) {
  write(0, kX, 1, 2);
  AccessHistory lost = history_, unknown = history_;
  lost.record({1, kX, 1, 3});
  EXPECT_NE(lost.violation().find("lost"), std::string::npos);
  unknown.record({1, kX, 9, AccessHistory::kNothing});
  EXPECT_NE(unknown.violation().find("nowhere"), std::string::npos);
}

}  // namespace
}  // namespace krg::kddm
