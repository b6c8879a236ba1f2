// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_offset.h"

#include <gtest/gtest.h>

#include <functional>
#include <utility>

namespace krg {
namespace {

// A description at its home, the kernel's offset of the file here, and a program that uses it.
struct File {
  SharedOffset offset{0};
  int64_t home = 0, here = 0;

  SharedOffset::Seen seen() const { return {here, offset.moves()->made()}; }
  // Where a read of `size` bytes by read(2) found them.
  int64_t read(int64_t size) {
    const int64_t at = here;
    const auto how = offset.begin(at, seen());
    EXPECT_TRUE(how.is_at_offset);
    if (how.sought) home = *how.sought;
    const int64_t found = home;
    home += size;
    offset.end(at, found, size, size);
    here = at + size;
    return found;
  }
  // As many moves as are to be made are made; `untold` runs after the first, which is not told yet.
  void move(const std::function<void()>& untold = {}) {
    bool is_first = true;
    offset.moves()->carry_out([&](int64_t by) {
      here += by;
      if (std::exchange(is_first, false) && untold) untold();
      return true;
    });
  }
  void settle() {
    if (auto seek = offset.take_seek(seen(), false); seek && seek->from == home) home = seek->to;
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
  EXPECT_FALSE(file.offset.begin(40, file.seen()).is_at_offset);
  EXPECT_EQ(file.read(10), 10);
}

TEST(SharedOffsetTest, AReadThatHasNotReturnedIsNoSeek) {
  SharedOffset offset(0);
  offset.begin(0, {0});
  offset.end(0, 0, 10, 10);
  EXPECT_FALSE(offset.take_seek({0}, true));
  EXPECT_TRUE(offset.take_seek({3}, true));
  EXPECT_TRUE(offset.take_seek({0}, false));
}

TEST(SharedOffsetTest, PiecesOfOneRead) {
  SharedOffset offset(0);
  EXPECT_TRUE(offset.begin(0, {0}).is_at_offset);
  EXPECT_TRUE(offset.end(0, 30, 8, 8));
  const auto second = offset.begin(8, {0});  // the call has not returned
  EXPECT_TRUE(second.is_at_offset);
  EXPECT_FALSE(second.sought);
  EXPECT_FALSE(offset.end(8, 38, 2, 8));
  EXPECT_FALSE(offset.begin(12, {0}).is_at_offset);
}

// Its thread waits for a processor meanwhile.
TEST(SharedOffsetTest, AMoveIsSeenBeforeItIsTold) {
  File file;
  file.home = 30;
  EXPECT_EQ(file.read(8), 30);
  file.move([&] {
    EXPECT_EQ(file.here, 38);
    EXPECT_EQ(file.read(8), 38);
    file.home = 100;
    EXPECT_EQ(file.read(8), 100);
    EXPECT_EQ(file.read(8), 108);
    file.settle();
    EXPECT_EQ(file.home, 116);
  });
  EXPECT_EQ(file.here, 116);
  EXPECT_EQ(file.read(8), 116);
  file.settle();
  EXPECT_EQ(file.home, 124);
}

TEST(SharedOffsetTest, TheFirstOfTwoMovesIsSeenBeforeItIsTold) {
  File file;
  file.home = 30;
  EXPECT_EQ(file.read(8), 30);
  file.home = 60;
  EXPECT_EQ(file.read(8), 60);
  file.move([&] {
    EXPECT_EQ(file.read(8), 68) << "no seek";
    file.home = 90;
    EXPECT_EQ(file.read(8), 90);
  });
  EXPECT_EQ(file.here, 98);
  EXPECT_EQ(file.read(8), 98);
}

TEST(SharedOffsetTest, AMoveThatIsMadeAndToldRightAfterTheLookIsNoSeek) {
  File file;
  file.home = 30;
  EXPECT_EQ(file.read(8), 30);
  const auto seen = file.seen();
  file.move();
  EXPECT_FALSE(file.offset.take_seek(seen, true));
  EXPECT_FALSE(file.offset.take_seek(file.seen(), true));
  EXPECT_EQ(file.read(8), 38);
}

TEST(SharedOffsetTest, AMoveThatCannotBeMadeIsMadeWithTheNext) {
  File file;
  file.home = 30;
  EXPECT_EQ(file.read(8), 30);
  file.offset.moves()->carry_out([](int64_t) { return false; });
  EXPECT_EQ(file.read(8), 38);
  file.home = 60;
  EXPECT_EQ(file.read(8), 60);
  file.move();
  EXPECT_EQ(file.here, 68);
  EXPECT_EQ(file.read(8), 68);
}

}  // namespace
}  // namespace krg
