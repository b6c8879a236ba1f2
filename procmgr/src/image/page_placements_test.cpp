// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_placements.h"

#include <gtest/gtest.h>

#include "page_list.h"

namespace krg {
namespace {

using Piece = PagePlacements::Piece;

constexpr RemoteAddr address(uint64_t page) {
  return {page * kMovedPageBytes};
}

class PagePlacementsTest : public ::testing::Test {
 protected:
  PagePlacementsTest() {
    placements_.add({address(100), 0, 10});
    placements_.add({address(200), 10, 5});
  }
  PagePlacements placements_;
};

TEST_F(PagePlacementsTest, BothWays) {
  EXPECT_EQ(placements_.page_at(address(100)), 0u);
  EXPECT_EQ(placements_.page_at(address(109) + 4095), 9u);
  EXPECT_EQ(placements_.page_at(address(110)), std::nullopt);
  EXPECT_EQ(placements_.page_at(address(99)), std::nullopt);
  EXPECT_EQ(placements_.page_at(address(204)), 14u);
  EXPECT_EQ(placements_.piece_from(3), (Piece{address(103), 3, 7}));
  EXPECT_EQ(placements_.piece_from(12), (Piece{address(202), 12, 3}));
  EXPECT_EQ(placements_.piece_from(15), std::nullopt);
}

TEST_F(PagePlacementsTest, CutInTheMiddle) {
  EXPECT_EQ(placements_.cut(address(103), address(105)),
            (std::vector<Piece>{{address(103), 3, 2}}));
  EXPECT_EQ(placements_.page_at(address(102)), 2u);
  EXPECT_EQ(placements_.page_at(address(103)), std::nullopt);
  EXPECT_EQ(placements_.page_at(address(105)), 5u);
  EXPECT_EQ(placements_.piece_from(0), (Piece{address(100), 0, 3}));
  EXPECT_EQ(placements_.piece_from(4), std::nullopt);
  EXPECT_EQ(placements_.piece_from(6), (Piece{address(106), 6, 4}));
}

TEST_F(PagePlacementsTest, CutAcross) {
  EXPECT_EQ(placements_.cut(address(108), address(201)),
            (std::vector<Piece>{{address(108), 8, 2}, {address(200), 10, 1}}));
  EXPECT_EQ(placements_.piece_from(10), std::nullopt);
  EXPECT_EQ(placements_.piece_from(11), (Piece{address(201), 11, 4}));
  EXPECT_TRUE(placements_.cut(address(110), address(200)).empty());
  EXPECT_EQ(placements_.cut(address(0), address(1000)).size(), 2u);
  EXPECT_TRUE(placements_.empty());
}

TEST_F(PagePlacementsTest, Moved) {
  for (Piece piece : placements_.cut(address(100), address(110))) {
    piece.at = piece.at + 400 * kMovedPageBytes;
    placements_.add(piece);
  }
  EXPECT_EQ(placements_.page_at(address(505)), 5u);
  EXPECT_EQ(placements_.page_at(address(105)), std::nullopt);
  EXPECT_EQ(placements_.piece_from(9), (Piece{address(509), 9, 1}));
  EXPECT_EQ(placements_.piece_from(10), (Piece{address(200), 10, 5}));
}

}  // namespace
}  // namespace krg
