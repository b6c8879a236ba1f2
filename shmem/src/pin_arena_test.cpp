// SPDX-License-Identifier: GPL-2.0-or-later
#include "pin_arena.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <random>
#include <vector>

namespace krg {
namespace {

TEST(PinArena, PlacesDoNotOverlapAndAreTakenAgain) {
  auto arena = PinArena::create();
  ASSERT_TRUE(arena);
  std::mt19937 random(1);
  std::map<uint64_t, PinArena::Place> taken;
  uint64_t end = 0;
  for (unsigned i = 0; i < 20'000; ++i) {
    if (!taken.empty() && random() % 2 == 0) {
      auto any = taken.lower_bound(random() % (end + 1));
      if (any == taken.end()) any = taken.begin();
      (*arena)->give_back(any->second);
      taken.erase(any);
      continue;
    }
    const size_t bytes = 8u << random() % 14;
    auto place = (*arena)->take(bytes - random() % 8);
    ASSERT_TRUE(place);
    EXPECT_EQ(place->offset % 64, 0u);
    auto after = taken.lower_bound(place->offset);
    if (after != taken.end()) {
      EXPECT_LE(place->offset + place->bytes.size(), after->first);
    }
    if (after != taken.begin()) {
      const auto& before = std::prev(after)->second;
      EXPECT_LE(before.offset + before.bytes.size(), place->offset);
    }
    end = std::max(end, place->offset + place->bytes.size());
    taken.emplace(place->offset, *place);
  }
  EXPECT_LT(end, 64u << 20) << "what is given back is used";
}

TEST(PinArena, SaysWhenItIsFull) {
  auto arena = PinArena::create();
  ASSERT_TRUE(arena);
  constexpr size_t kLarge = 4u << 20;
  for (size_t used = 0; used < kPinArenaBytes; used += kLarge) ASSERT_TRUE((*arena)->take(kLarge));
  EXPECT_FALSE((*arena)->take(64));
}

TEST(PinArena, PlacesOfOneSizeAreOfAnySizeOnceNothingIsPinned) {
  auto arena = PinArena::create();
  ASSERT_TRUE(arena);
  constexpr size_t kLarge = 4u << 20;
  std::vector<PinArena::Place> places;
  for (size_t used = 0; used < kPinArenaBytes; used += kLarge)
    places.push_back(*(*arena)->take(kLarge));
  for (size_t i = 1; i < places.size(); ++i) (*arena)->give_back(places[i]);
  EXPECT_FALSE((*arena)->take(2 * kLarge)) << "one is pinned";
  (*arena)->give_back(places[0]);
  EXPECT_FALSE((*arena)->take(kPinArenaBytes + 1));
  auto all = (*arena)->take(kPinArenaBytes);
  ASSERT_TRUE(all);
  EXPECT_EQ(all->offset, 0u);
  EXPECT_FALSE((*arena)->take(kLarge));
}

TEST(PinArena, WhoSharesItCannotTakeItAway) {
  auto arena = PinArena::create();
  ASSERT_TRUE(arena);
  EXPECT_EQ(ftruncate((*arena)->fd(), 0), -1);
  EXPECT_EQ(errno, EPERM);
  auto place = (*arena)->take(100);
  ASSERT_TRUE(place);
  place->bytes[99] = std::byte{5};
  std::byte seen{};
  ASSERT_EQ(pread((*arena)->fd(), &seen, 1, static_cast<off_t>(place->offset) + 99), 1);
  EXPECT_EQ(seen, std::byte{5});
}

}  // namespace
}  // namespace krg
