// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/load_pages.h"

#include <algorithm>

#include "each_block.h"

namespace krg {
namespace {

// The pages of one part; `ranges`: what is wanted of them, by offset.
class PartLoad {
 public:
  PartLoad(const PartReader& part, std::vector<PartRange> ranges, const FileSink& sink)
      : part_(part), ranges_(std::move(ranges)), sink_(sink) {}

  Status run() const {
    return each_block(part_.block_count(), [this](uint64_t index, std::span<std::byte> block) {
      return load(index, block);
    });
  }

 private:
  Status load(uint64_t index, std::span<std::byte> block) const {
    const uint64_t start = index * kCheckpointBlock, end = start + kCheckpointBlock;
    auto range =
        std::upper_bound(ranges_.begin(), ranges_.end(), start,
                         [](uint64_t at, const PartRange& r) { return at < r.offset + r.bytes; });
    if (range == ranges_.end() || range->offset >= end) return {};
    auto bytes = part_.read(index, block);
    if (!bytes) return bytes.error();
    while (range != ranges_.end() && range->offset < end) {
      // What lies side by side and is one process's goes at once.
      const uint32_t member = range->member;
      const uint64_t from = std::max(range->offset, start);
      uint64_t at = from;
      std::vector<PageRange> pieces;
      for (; range != ranges_.end() && range->member == member &&
             std::max(range->offset, start) == at && at < end;
           ++range) {
        const uint64_t skip = at - range->offset;
        const uint64_t part = std::min(range->bytes - skip, end - at);
        pieces.push_back({.start = {range->address + skip}, .bytes = part});
        at += part;
      }
      if (at - start > *bytes) return text_error("the tables of a part contradict each other");
      if (auto put = sink_(member, pieces, block.subspan(from - start, at - from)); !put)
        return put;
    }
    return {};
  }

  const PartReader& part_;
  const std::vector<PartRange> ranges_;
  const FileSink& sink_;
};

// Of each own part the ranges that are wanted, from whatever parts have them.
template <class Wanted>
Status load(const VersionInfo& info, const std::vector<std::unique_ptr<PartReader>>& parts,
            const Wanted& is_wanted, const FileSink& sink) {
  for (size_t own = 0; own < info.nodes.size(); ++own) {
    const PartContents& contents = parts.at(own)->contents();
    for (const auto& part : parts) {
      if (part->contents().node != contents.node) continue;
      std::vector<PartRange> ranges;
      for (const PartRange& range : contents.ranges)
        if (range.version == part->contents().version && is_wanted(range.member))
          ranges.push_back(range);
      std::sort(ranges.begin(), ranges.end(),
                [](const PartRange& a, const PartRange& b) { return a.offset < b.offset; });
      if (auto loaded = PartLoad(*part, std::move(ranges), sink).run(); !loaded) return loaded;
    }
  }
  return {};
}

}  // namespace

Status load_pages(const VersionInfo& info, const std::vector<std::unique_ptr<PartReader>>& parts,
                  const std::function<bool(pid_t member)>& is_wanted, const PageSink& sink,
                  const SharedProgress& progress) {
  const auto& members = parts.at(0)->contents().family.members;
  const auto is_one = [&](uint32_t member) {
    return member < members.size() && is_wanted(members[member].pid);
  };
  for (size_t own = 0; progress && own < info.nodes.size(); ++own)
    for (const PartRange& range : parts.at(own)->contents().ranges)
      if (is_one(range.member)) progress->total += range.bytes;
  return load(
      info, parts, is_one,
      [&](uint32_t member, std::span<const PageRange> ranges, std::span<const std::byte> contents) {
        add_done(progress, contents.size());
        return sink(members[member].pid, ranges, contents);
      });
}

Status load_files(const VersionInfo& info, const std::vector<std::unique_ptr<PartReader>>& parts,
                  const FileSink& sink) {
  const auto members = static_cast<uint32_t>(parts.at(0)->contents().family.members.size());
  return load(
      info, parts, [members](uint32_t member) { return member >= members; },
      [&](uint32_t member, std::span<const PageRange> ranges, std::span<const std::byte> contents) {
        return sink(member - members, ranges, contents);
      });
}

}  // namespace krg
