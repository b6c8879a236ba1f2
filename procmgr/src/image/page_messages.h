// The messages of page moves (krg/procmgr/page_moves.h): between the node that has a moved
// process's pages (S) and the one where it runs (T). A move is named by S and a number of S's; both
// have numbered its pages alike (page_list.h). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "krg/procmgr/node_context.h"
#include "krg/runtime/transport.h"

namespace krg {

// Pages travel in slots of this size: one-sided into T's memory, or inside a message.
inline constexpr uint32_t kPageSlotBytes = 1u << 20;
inline constexpr uint32_t kMaxPageSlots = 8;
inline constexpr uint32_t kNoPageSlot = ~uint32_t{0};
// So little travels in one message altogether.
inline constexpr uint64_t kMostBytesInMessage = 64u << 10;

// Of a region of so many bytes; the last slot may be shorter.
constexpr uint32_t slots_in(uint64_t bytes) {
  return static_cast<uint32_t>((bytes + kPageSlotBytes - 1) / kPageSlotBytes);
}
// REQUIRES: slot < slots_in(region.size()).
template <class Byte>
std::span<Byte> page_slot(std::span<Byte> region, uint32_t slot) {
  const size_t start = size_t{slot} * kPageSlotBytes;
  return region.subspan(start, std::min<size_t>(kPageSlotBytes, region.size() - start));
}

// T: send me everything, into `slots` slots of my region; none: in one message.
struct PagesWanted {
  static constexpr uint16_t kId = message_ids::kPageMoves;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  uint32_t slots = 0;
  uint64_t move = 0;
  uint64_t pages = 0;  // how many there are, to see that both speak of the same
  RemoteRegion region = {};
};
// T: somebody waits for this page.
struct PageDemand {
  static constexpr uint16_t kId = message_ids::kPageMoves + 1;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t move = 0;
  uint64_t page = 0;
};
// T: the slot may be filled again.
struct PageSlotFree {
  static constexpr uint16_t kId = message_ids::kPageMoves + 2;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  uint32_t slot = 0;
  uint64_t move = 0;
};
// T: nothing more is needed: all are here, or nobody is left to need them. Request; answered when
// nothing more is under way to the region.
struct PagesEnd {
  static constexpr uint16_t kId = message_ids::kPageMoves + 3;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t error = 0;  // 0: all are here
  uint64_t move = 0;
};
// S: pages, as PageRuns; their bytes are in the slot, or follow the runs.
struct PageChunk {
  static constexpr uint16_t kId = message_ids::kPageMoves + 4;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  uint32_t slot = kNoPageSlot;
  uint64_t move = 0;
  uint32_t runs = 0;
  uint32_t unused_too = 0;
};
// S: the pages that you have not got are lost.
struct PagesLost {
  static constexpr uint16_t kId = message_ids::kPageMoves + 5;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t error = 0;
  uint64_t move = 0;
};
static_assert(sizeof(PagesWanted) == 48 && sizeof(PageDemand) == 24 && sizeof(PageSlotFree) == 16 &&
              sizeof(PagesEnd) == 16 && sizeof(PageChunk) == 24 && sizeof(PagesLost) == 16);

// Pages in a row, and whether there are bytes of them; else they are zeros.
struct PageRun {
  uint64_t first = 0;
  uint32_t count = 0;
  uint32_t has_bytes = 0;
};
static_assert(sizeof(PageRun) == 16);

}  // namespace krg
