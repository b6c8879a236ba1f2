// SPDX-License-Identifier: GPL-2.0-or-later
#include "late_pages.h"

#include <algorithm>
#include <deque>
#include <map>

#include "part_pages.h"

namespace krg {
namespace {

// While one block is put into memory, the next one is read.
constexpr unsigned kReadings = 2;

struct Block {
  size_t part = 0;  // of State::pages
  uint64_t index = 0;
  auto operator<=>(const Block&) const = default;
};

struct Reading {
  struct Piece {
    std::vector<PageRange> ranges;
    std::span<const std::byte> contents;
  };
  std::vector<std::byte> bytes;
  std::vector<Piece> pieces;
  Status outcome = {};
};

void read(const PartPages& pages, uint64_t index, Reading& reading) {
  reading.bytes.resize(kCheckpointBlock);
  reading.outcome =
      load_block(pages, index, reading.bytes,
                 [&](uint32_t, std::span<const PageRange> ranges,
                     std::span<const std::byte> contents) -> Status {
                   reading.pieces.push_back({{ranges.begin(), ranges.end()}, contents});
                   return {};
                 });
}

}  // namespace

struct LatePages::State : std::enable_shared_from_this<State> {
  struct Place {
    uint64_t address = 0, bytes = 0, offset = 0;
    size_t part = 0;
  };

  State(WorkerPool& w, const VersionInfo& info, SharedParts p, uint32_t member)
      : workers(w),
        parts(std::move(p)),
        pages(wanted_pages(info, *parts, [member](uint32_t one) { return one == member; })) {
    for (size_t part = 0; part < pages.size(); ++part) {
      for (const PartRange& range : pages[part].ranges)
        places.push_back({range.address, range.bytes, range.offset, part});
      for (uint64_t index = 0; index < pages[part].part->block_count(); ++index)
        if (has_block(pages[part], index)) is_asked[{part, index}] = false;
    }
    std::ranges::sort(places, {}, &Place::address);
    next = is_asked.begin();
  }

  void read_more();
  void take(const Reading& reading);

  WorkerPool& workers;
  const SharedParts parts;
  const std::vector<PartPages> pages;
  std::vector<Place> places;  // by address
  std::map<Block, bool> is_asked;
  std::map<Block, bool>::iterator next;  // where the background goes on
  std::deque<Block> urgent;
  unsigned under_way = 0;
  Takers takers;  // none: nobody takes anything any more
};

LatePages::LatePages(WorkerPool& workers, const VersionInfo& info, SharedParts parts,
                     uint32_t member)
    : state_(std::make_shared<State>(workers, info, std::move(parts), member)) {}

LatePages::~LatePages() {
  state_->takers = {};
}

std::vector<PageRange> LatePages::ranges() const {
  std::vector<PageRange> ranges;
  for (const State::Place& place : state_->places)
    ranges.push_back({.start = {place.address}, .bytes = place.bytes});
  return ranges;
}

void LatePages::begin(Takers takers) {
  state_->takers = std::move(takers);
  state_->read_more();
}

void LatePages::demand(RemoteAddr page) {
  const auto behind =
      std::ranges::upper_bound(state_->places, page.value, {}, &State::Place::address);
  if (behind == state_->places.begin()) return;
  const State::Place& place = *std::prev(behind);
  if (page.value - place.address >= place.bytes) return;
  const uint64_t offset = place.offset + (page.value - place.address);
  state_->urgent.push_back({place.part, offset / kCheckpointBlock});
  state_->read_more();
}

void LatePages::State::read_more() {
  while (under_way < kReadings && takers.pages) {
    while (!urgent.empty() && is_asked.at(urgent.front())) urgent.pop_front();
    while (next != is_asked.end() && next->second) ++next;
    if (urgent.empty() && next == is_asked.end()) return;
    const Block block = urgent.empty() ? next->first : urgent.front();
    is_asked[block] = true;
    ++under_way;
    auto reading = std::make_shared<Reading>();
    workers.submit([self = shared_from_this(), block,
                    reading] { read(self->pages[block.part], block.index, *reading); },
                   [self = shared_from_this(), reading] { self->take(*reading); });
  }
}

void LatePages::State::take(const Reading& reading) {
  --under_way;
  const Takers to = takers;  // may end while it takes
  if (!to.pages) return;
  if (!reading.outcome) return to.lost(reading.outcome.error());
  for (const Reading::Piece& piece : reading.pieces) to.pages(piece.ranges, piece.contents);
  read_more();
}

}  // namespace krg
