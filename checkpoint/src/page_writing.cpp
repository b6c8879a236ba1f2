// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_writing.h"

#include <algorithm>

#include "each_block.h"
#include "pass_blocks.h"

namespace krg {
namespace {

// Reads and writes block after block.
class PageWriting {
 public:
  PageWriting(const PageContents& contents, const std::vector<PartRange>& ranges, PageBounds bounds,
              PartWriter& writer)
      : contents_(contents), ranges_(ranges), bounds_(bounds), writer_(writer) {}

  Status run(const SharedProgress& progress) const {
    const uint64_t first = bounds_.begin / kCheckpointBlock;
    const uint64_t count = (bounds_.end - bounds_.begin + kCheckpointBlock - 1) / kCheckpointBlock;
    if (count == 0) return {};
    if (!writer_.waits_for_disk())
      return each_block(count, [&](uint64_t index, BlockBuffer& buffer) -> Status {
        auto block = give(first + index, buffer.whole(), progress);
        return block ? writer_.write(first + index, *block) : block.error();
      });
    BlockHands hands;
    hands.givers = threads_for_blocks();
    hands.takers = kThreadsForDisk;
    hands.give = [&](uint64_t index, std::span<std::byte> room) {
      auto block = give(first + index, room, progress);
      if (block) writer_.check(first + index, *block);
      return block;
    };
    hands.take = [&](uint64_t index, std::span<const std::byte> block, BlockBuffer&) {
      return writer_.store(first + index, block);
    };
    return pass_blocks(
        count, [](uint64_t) { return true; }, hands);
  }

 private:
  // Block `index`, in `room` or where it lies in memory anyway.
  Result<std::span<const std::byte>> give(uint64_t index, std::span<std::byte> room,
                                          const SharedProgress& progress) const {
    const uint64_t at = index * kCheckpointBlock;
    const uint64_t bytes = std::min(kCheckpointBlock, bounds_.end - at);
    add_done(progress, bytes);
    const auto piece = next_piece(at, bytes);
    if (const std::byte* there = contents_.find_all(piece.member, piece.ranges);
        there && piece.bytes == bytes)
      return std::span(there, bytes);
    if (auto done = read(at, room.first(bytes)); !done) return done.error();
    return std::span<const std::byte>(room.first(bytes));
  }
  // What is of one process.
  struct Piece {
    uint32_t member = 0;
    std::vector<PageRange> ranges;
    uint64_t bytes = 0;
  };
  Piece next_piece(uint64_t at, uint64_t most) const {
    auto range =
        std::upper_bound(ranges_.begin(), ranges_.end(), at,
                         [](uint64_t offset, const PartRange& r) { return offset < r.offset; });
    --range;
    Piece piece;
    piece.member = range->member;
    for (; range != ranges_.end() && range->member == piece.member && piece.bytes < most; ++range) {
      const uint64_t skip = at > range->offset ? at - range->offset : 0;
      const uint64_t part = std::min<uint64_t>(range->bytes - skip, most - piece.bytes);
      piece.ranges.push_back({.start = {range->address + skip}, .bytes = part});
      piece.bytes += part;
      at += part;
    }
    return piece;
  }
  Status read(uint64_t at, std::span<std::byte> into) const {
    const uint64_t end = ranges_.back().offset + ranges_.back().bytes;
    while (!into.empty()) {
      if (at >= end) {
        std::fill(into.begin(), into.end(), std::byte{0});
        break;
      }
      const Piece piece = next_piece(at, into.size());
      if (auto read = contents_.read(piece.member, piece.ranges, into.first(piece.bytes)); !read)
        return read;
      into = into.subspan(piece.bytes);
      at += piece.bytes;
    }
    return {};
  }

  const PageContents& contents_;
  const std::vector<PartRange>& ranges_;
  const PageBounds bounds_;
  PartWriter& writer_;
};

}  // namespace

Status write_pages(const PageContents& contents, const std::vector<PartRange>& ranges,
                   PageBounds bounds, PartWriter& writer, const SharedProgress& progress) {
  return PageWriting(contents, ranges, bounds, writer).run(progress);
}

}  // namespace krg
