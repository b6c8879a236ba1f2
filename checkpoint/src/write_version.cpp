// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/write_version.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <optional>
#include "each_block.h"

namespace krg {
namespace {

uint64_t random_id() {
  uint64_t id = 0;
  while (id == 0)
    if (getrandom(&id, sizeof id, 0) != sizeof id) id = static_cast<uint64_t>(time(nullptr));
  return id;
}

std::string now_in_words() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(time(nullptr)));
}

// Reads and writes block after block; `ranges` are in the order of their offsets, without gaps.
class PageCopy {
 public:
  PageCopy(const PageSnapshot& snapshot, const PartContents& contents, PartWriter& writer)
      : snapshot_(snapshot), contents_(contents), writer_(writer) {
    for (const PartRange& range : contents.ranges)
      if (range.version == contents.version) ranges_.push_back(range);
  }

  Status run() const {
    const uint64_t count = (contents_.page_bytes + kCheckpointBlock - 1) / kCheckpointBlock;
    return each_block(count, [this](uint64_t index, std::span<std::byte> block) {
      const uint64_t at = index * kCheckpointBlock;
      const auto part = block.first(std::min(kCheckpointBlock, contents_.page_bytes - at));
      auto done = read(at, part);
      return done ? writer_.write(index, part) : done;
    });
  }

 private:
  Status read(uint64_t at, std::span<std::byte> into) const {
    auto range =
        std::upper_bound(ranges_.begin(), ranges_.end(), at,
                         [](uint64_t offset, const PartRange& r) { return offset < r.offset; });
    --range;
    while (!into.empty()) {
      // All that is of one process at once.
      std::vector<PageRange> wanted;
      uint64_t bytes = 0;
      const uint32_t member = range->member;
      for (; range != ranges_.end() && range->member == member && bytes < into.size(); ++range) {
        const uint64_t skip = at > range->offset ? at - range->offset : 0;
        const uint64_t part = std::min<uint64_t>(range->bytes - skip, into.size() - bytes);
        wanted.push_back({.start = {range->address + skip}, .bytes = part});
        bytes += part;
        at += part;
      }
      if (auto read = snapshot_.read(member, wanted, into.first(bytes)); !read) return read;
      into = into.subspan(bytes);
    }
    return {};
  }

  const PageSnapshot& snapshot_;
  const PartContents& contents_;
  PartWriter& writer_;
  std::vector<PartRange> ranges_;
};

Result<PartContents> contents_of(const PageSnapshot& snapshot, uint32_t version, uint64_t id) {
  PartContents contents;
  contents.version = version;
  contents.id = id;
  contents.family = snapshot.family();
  auto pages = snapshot.pages();
  if (!pages) return pages.error();
  for (const FamilySnapshot::Pages& piece : *pages) {
    contents.ranges.push_back({.member = piece.member,
                               .version = version,
                               .address = piece.range.start.value,
                               .bytes = piece.range.bytes,
                               .offset = contents.page_bytes});
    contents.page_bytes += piece.range.bytes;
  }
  return contents;
}

VersionInfo describe(const PartContents& contents, const WriteOptions& options) {
  VersionInfo info;
  info.version = contents.version;
  info.id = contents.id;
  info.created = now_in_words();
  info.command = contents.family.command;
  info.description = options.description;
  info.root_pid = static_cast<uint64_t>(contents.family.members.front().pid);
  info.processes = contents.family.members.size();
  info.page_bytes = contents.page_bytes;
  for (const PartRange& range : contents.ranges) info.memory_bytes += range.bytes;
  info.nodes = {contents.node};
  return info;
}

}  // namespace

Result<WrittenVersion> write_version(const PageSnapshot& snapshot, const WriteOptions& options) {
  auto store = CheckpointStore::open(options.folder, true);
  if (!store) return store.error();
  if (auto locked = store->lock(); !locked) return locked.error();
  auto version = store->next_version();
  if (!version) return version.error();
  options.on_step("tables");
  auto contents = contents_of(snapshot, *version, random_id());
  if (!contents) return contents.error();
  const std::string path = store->part_path(*version, contents->node);
  const auto give_up = [&](const Error& why) {
    unlink(path.c_str());
    return why;
  };
  auto writer = PartWriter::create(path, *contents,
                                   {.compress = options.compress, .spare = store->spare_path()});
  if (!writer) return give_up(writer.error());
  options.on_step("pages");
  if (auto copied = PageCopy(snapshot, *contents, **writer).run(); !copied)
    return give_up(copied.error());
  options.on_step("seal");
  if (auto finished = (*writer)->finish(); !finished) return give_up(finished.error());
  WrittenVersion written{describe(*contents, options), (*writer)->stored_bytes()};
  options.on_step("commit");
  if (auto committed = store->commit(written.info); !committed) return give_up(committed.error());
  options.on_step("prune");
  if (options.keep > 0)
    if (auto pruned = store->prune(options.keep); !pruned) return pruned.error();
  options.on_step("end");
  return written;
}

}  // namespace krg
