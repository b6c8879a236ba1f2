// SPDX-License-Identifier: GPL-2.0-or-later
#include "part_pages.h"

#include <algorithm>

namespace krg {
namespace {

// The first range that ends behind the start of the block.
auto first_in(const PartPages& pages, uint64_t index) {
  return std::upper_bound(
      pages.ranges.begin(), pages.ranges.end(), index * kCheckpointBlock,
      [](uint64_t at, const PartRange& range) { return at < range.offset + range.bytes; });
}

}  // namespace

std::vector<PartPages> wanted_pages(const VersionInfo& info,
                                    const std::vector<std::unique_ptr<PartReader>>& parts,
                                    const std::function<bool(uint32_t member)>& is_wanted) {
  std::vector<PartPages> all;
  for (size_t own = 0; own < info.nodes.size(); ++own) {
    const PartContents& contents = parts.at(own)->contents();
    for (const auto& part : parts) {
      if (part->contents().node != contents.node) continue;
      PartPages pages{part.get(), {}};
      for (const PartRange& range : contents.ranges)
        if (range.version == part->contents().version && is_wanted(range.member))
          pages.ranges.push_back(range);
      std::ranges::sort(pages.ranges, {}, &PartRange::offset);
      if (!pages.ranges.empty()) all.push_back(std::move(pages));
    }
  }
  return all;
}

bool has_block(const PartPages& pages, uint64_t index) {
  const auto range = first_in(pages, index);
  return range != pages.ranges.end() && range->offset < (index + 1) * kCheckpointBlock;
}

Status load_block(const PartPages& pages, uint64_t index, std::span<std::byte> block,
                  const FileSink& sink) {
  if (!has_block(pages, index)) return {};
  auto bytes = pages.part->read(index, block);
  return bytes ? place_block(pages, index, block.first(*bytes), sink) : bytes.error();
}

Status place_block(const PartPages& pages, uint64_t index, std::span<const std::byte> contents,
                   const FileSink& sink) {
  const uint64_t start = index * kCheckpointBlock, end = start + kCheckpointBlock;
  for (auto range = first_in(pages, index); range != pages.ranges.end() && range->offset < end;) {
    // What lies side by side and is one process's goes at once.
    const uint32_t member = range->member;
    const uint64_t from = std::max(range->offset, start);
    uint64_t at = from;
    std::vector<PageRange> pieces;
    for (; range != pages.ranges.end() && range->member == member &&
           std::max(range->offset, start) == at && at < end;
         ++range) {
      const uint64_t skip = at - range->offset;
      const uint64_t part = std::min(range->bytes - skip, end - at);
      pieces.push_back({.start = {range->address + skip}, .bytes = part});
      at += part;
    }
    if (at - start > contents.size())
      return text_error("the tables of a part contradict each other");
    if (auto put = sink(member, pieces, contents.subspan(from - start, at - from)); !put)
      return put;
  }
  return {};
}

}  // namespace krg
