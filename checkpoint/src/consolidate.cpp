// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/consolidate.h"

#include <unistd.h>

#include <algorithm>
#include <map>

#include "each_block.h"
#include "krg/checkpoint/checkpoint_store.h"

namespace krg {
namespace {

using Parts = std::vector<std::unique_ptr<PartReader>>;

// The pages of the new part: those of the old one first, then what it had in older parts.
class Merge {
 public:
  Merge(const Parts& parts, const PartReader& own) {
    const PartContents& old = own.contents();
    contents_ = old;
    append({.part = &own, .bytes = old.page_bytes});
    std::map<uint32_t, const PartReader*> by_version;
    for (const auto& part : parts)
      if (part->contents().node == old.node) by_version[part->contents().version] = part.get();
    std::vector<PartRange*> older;
    for (PartRange& range : contents_.ranges)
      if (range.version != old.version) older.push_back(&range);
    std::sort(older.begin(), older.end(), [](const PartRange* a, const PartRange* b) {
      return std::pair(a->version, a->offset) < std::pair(b->version, b->offset);
    });
    for (PartRange* range : older) {
      const uint64_t from = range->offset;
      range->offset = contents_.page_bytes;
      append({.part = by_version.at(range->version), .offset = from, .bytes = range->bytes});
      range->version = old.version;
    }
  }

  const PartContents& contents() const { return contents_; }

  Status copy(PartWriter& writer, const std::function<bool()>& is_stopped) const {
    const uint64_t count = (contents_.page_bytes + kCheckpointBlock - 1) / kCheckpointBlock;
    return each_block(count, [&](uint64_t index, BlockBuffer& buffer) -> Status {
      if (is_stopped()) return errno_error("consolidating", ECANCELED);
      const uint64_t at = index * kCheckpointBlock;
      const auto block = buffer.of(std::min(kCheckpointBlock, contents_.page_bytes - at));
      auto got = fill(at, block);
      return got ? writer.write(index, block) : got;
    });
  }

 private:
  // Pages in a row that are so in an old part, too.
  struct Piece {
    const PartReader* part = nullptr;
    uint64_t offset = 0, bytes = 0;
    uint64_t at = 0;  // in the new one
  };

  void append(Piece piece) {
    if (piece.bytes == 0) return;
    piece.at = pieces_.empty() ? 0 : pieces_.back().at + pieces_.back().bytes;
    pieces_.push_back(piece);
    contents_.page_bytes = piece.at + piece.bytes;
  }

  Status fill(uint64_t at, std::span<std::byte> into) const {
    std::vector<std::byte> source(kCheckpointBlock);
    const PartReader* part = nullptr;
    uint64_t block = 0;
    auto piece = std::upper_bound(pieces_.begin(), pieces_.end(), at,
                                  [](uint64_t place, const Piece& p) { return place < p.at; });
    for (--piece; !into.empty();) {
      const uint64_t from = piece->offset + (at - piece->at);
      if (part != piece->part || block != from / kCheckpointBlock) {
        part = piece->part;
        block = from / kCheckpointBlock;
        if (auto read = part->read(block, source); !read) return read.error();
      }
      const uint64_t bytes =
          std::min({piece->at + piece->bytes - at, kCheckpointBlock - from % kCheckpointBlock,
                    uint64_t{into.size()}});
      std::copy_n(source.begin() + static_cast<long>(from % kCheckpointBlock), bytes, into.begin());
      into = into.subspan(bytes);
      at += bytes;
      if (at == piece->at + piece->bytes) ++piece;
    }
    return {};
  }

  PartContents contents_;
  std::vector<Piece> pieces_;
};

// Writes the part of one node. What it has of pages.
Result<uint64_t> write_merged(const std::string& path, const Parts& parts, const PartReader& own,
                              const ConsolidateOptions& options) {
  options.on_step("merge");
  const Merge merge(parts, own);
  auto writer =
      PartWriter::create(path, merge.contents(), {.compress = options.compress, .spare = {}});
  if (!writer) return writer.error();
  options.on_step("merge pages");
  if (auto copied = merge.copy(**writer, options.is_stopped); !copied) return copied.error();
  options.on_step("merge seal");
  if (auto finished = (*writer)->finish(); !finished) return finished.error();
  return merge.contents().page_bytes;
}

}  // namespace

Status consolidate(const std::string& folder, uint32_t version, const ConsolidateOptions& options) {
  auto store = CheckpointStore::open(folder, false);
  if (!store) return store.error();
  if (auto locked = store->lock(options.patience); !locked) return locked;
  auto info = store->info(version);
  if (!info) return info.error();
  if (info->needs.empty()) return {};
  auto parts = store->open_parts(*info);
  if (!parts) return parts.error();
  std::vector<std::string> paths;
  uint64_t page_bytes = 0;
  for (size_t i = 0; i < info->nodes.size(); ++i) {
    paths.push_back(store->part_path(info->version, info->nodes[i]) + ".tmp");
    auto written = write_merged(paths.back(), *parts, *(*parts)[i], options);
    if (!written) {
      for (const std::string& path : paths) unlink(path.c_str());
      return written.error();
    }
    page_bytes += *written;
  }
  info->page_bytes = page_bytes;
  info->needs.clear();
  info->needs_ids.clear();
  options.on_step("merge replace");
  auto replaced = store->replace_parts(paths, *info);
  options.on_step("merge end");
  return replaced;
}

}  // namespace krg
