// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/load_pages.h"

#include "part_pages.h"
#include "read_blocks.h"

namespace krg {
namespace {

Status load(const VersionInfo& info, const std::vector<std::unique_ptr<PartReader>>& parts,
            const std::function<bool(uint32_t member)>& is_wanted, const FileSink& sink) {
  for (const PartPages& pages : wanted_pages(info, parts, is_wanted)) {
    auto loaded = read_blocks(
        *pages.part, [&](uint64_t index) { return has_block(pages, index); },
        [&](uint64_t index, std::span<const std::byte> contents) {
          return place_block(pages, index, contents, sink);
        });
    if (!loaded) return loaded;
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
                  const std::function<bool(uint32_t file)>& is_wanted, const FileSink& sink) {
  const ProcessFamily& family = parts.at(0)->contents().family;
  const auto first = static_cast<uint32_t>(family.members.size());
  const uint32_t end = family.owner_of_memory(0);
  return load(
      info, parts,
      [&, first, end](uint32_t owner) {
        return first <= owner && owner < end && is_wanted(owner - first);
      },
      [&](uint32_t owner, std::span<const PageRange> ranges, std::span<const std::byte> contents) {
        return sink(owner - first, ranges, contents);
      });
}

Status load_memories(const VersionInfo& info, const std::vector<std::unique_ptr<PartReader>>& parts,
                     const MemorySink& sink) {
  const uint32_t first = parts.at(0)->contents().family.owner_of_memory(0);
  return load(
      info, parts, [first](uint32_t owner) { return owner >= first; },
      [&](uint32_t owner, std::span<const PageRange> ranges, std::span<const std::byte> contents) {
        return sink(owner - first, ranges, contents);
      });
}

}  // namespace krg
