// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_offset.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

// A description at its home, the kernel's offset of the file here, and a program that uses it.
struct File {
  SharedOffset offset{0};
  int64_t home = 0, here = 0;
  int64_t owed = 0;  // the kernel's offset here is to be moved by that

  // Where a read of `size` bytes by read(2) found them.
  int64_t read(int64_t size) {
    const int64_t at = here;
    const auto how = offset.begin(at, here);
    EXPECT_TRUE(how.is_at_offset);
    if (how.sought) home = *how.sought;
    const int64_t found = home;
    home += size;
    owed += offset.end(at, found, size, size);
    here = at + size;
    return found;
  }
  void move() {
    here += owed;
    offset.moves()->in_all += std::exchange(owed, 0);
  }
  void settle() {
    if (auto seek = offset.take_seek(here, false); seek && seek->from == home) home = seek->to;
  }
};

TEST(SharedOffsetTest, ReadsGoOnWhereOthersHaveReadTo) {
  File file;
  EXPECT_EQ(file.read(10), 0);
  file.home += 5;
  EXPECT_EQ(file.read(10), 15);
  file.move();
  EXPECT_EQ(file.here, 25);
  file.home = 100;
  EXPECT_EQ(file.read(10), 100);
  EXPECT_EQ(file.read(10), 110);  // before the kernel's offset has been moved
  file.home = 200;
  EXPECT_EQ(file.read(10), 200);
  file.move();
  EXPECT_EQ(file.here, 210);
  EXPECT_EQ(file.read(10), 210);
}

TEST(SharedOffsetTest, ASeekIsToldWithTheNextRead) {
  File file;
  EXPECT_EQ(file.read(10), 0);
  file.here = 4;
  EXPECT_EQ(file.read(10), 4);
  EXPECT_EQ(file.home, 14);
}

TEST(SharedOffsetTest, ASeekBackRightAfterARead) {
  File file;
  file.home = 50;
  EXPECT_EQ(file.read(10), 50);
  file.here -= 3;  // by lseek(SEEK_CUR), before it has been moved
  EXPECT_EQ(file.read(10), 57);
  file.move();
  EXPECT_EQ(file.here, 67);
  EXPECT_EQ(file.read(1), 67);
}

TEST(SharedOffsetTest, ASeekBackRightAfterAMove) {
  File file;
  file.home = 50;
  EXPECT_EQ(file.read(10), 50);
  file.move();
  file.here -= 3;
  EXPECT_EQ(file.read(10), 57);
  EXPECT_EQ(file.here, 67);
}

TEST(SharedOffsetTest, ASeekIsToldWithoutARead) {
  File file;
  EXPECT_EQ(file.read(10), 0);
  file.settle();
  EXPECT_EQ(file.home, 10);
  file.here = 4;
  file.settle();
  EXPECT_EQ(file.home, 4);
  file.home = 7;  // somebody else
  EXPECT_EQ(file.read(2), 7);
  file.here -= 1;
  file.settle();
  EXPECT_EQ(file.home, 8);
}

TEST(SharedOffsetTest, OneThatOthersHaveMovedStays) {
  File file;
  EXPECT_EQ(file.read(10), 0);
  file.here = 4;
  file.home = 20;
  file.settle();
  EXPECT_EQ(file.home, 20);
}

TEST(SharedOffsetTest, ReadsAtAnotherPlaceMoveNothing) {
  File file;
  EXPECT_EQ(file.read(10), 0);
  EXPECT_FALSE(file.offset.begin(40, file.here).is_at_offset);
  EXPECT_EQ(file.read(10), 10);
}

TEST(SharedOffsetTest, AReadThatHasNotReturnedIsNoSeek) {
  SharedOffset offset(0);
  offset.begin(0, 0);
  offset.end(0, 0, 10, 10);
  EXPECT_FALSE(offset.take_seek(0, true));
  EXPECT_TRUE(offset.take_seek(3, true));
  EXPECT_TRUE(offset.take_seek(0, false));
}

TEST(SharedOffsetTest, PiecesOfOneRead) {
  SharedOffset offset(0);
  EXPECT_TRUE(offset.begin(0, 0).is_at_offset);
  EXPECT_EQ(offset.end(0, 30, 8, 8), 30);
  const auto second = offset.begin(8, 0);  // the call has not returned
  EXPECT_TRUE(second.is_at_offset);
  EXPECT_FALSE(second.sought);
  EXPECT_EQ(offset.end(8, 38, 2, 8), 0);
  EXPECT_FALSE(offset.begin(12, 0).is_at_offset);
}

TEST(SharedOffsetTest, AMoveIsSeenBeforeItIsTold) {
  SharedOffset offset(0);
  offset.begin(0, 0);
  EXPECT_EQ(offset.end(0, 30, 8, 8), 30);
  EXPECT_FALSE(offset.begin(38, 38).sought);
  EXPECT_EQ(offset.end(38, 38, 8, 8), 0);
  offset.moves()->in_all += 30;
  EXPECT_FALSE(offset.take_seek(46, true));
}

}  // namespace
}  // namespace krg
