// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/live_part.h"

#include <unistd.h>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/write_version.h"
#include "page_writing.h"

namespace krg {
namespace {

// So much is written before it is looked again at what has not been written to meanwhile.
constexpr uint64_t kAtOnce = 128u << 20;

uint64_t whole_blocks(uint64_t bytes) {
  return (bytes + kCheckpointBlock - 1) / kCheckpointBlock * kCheckpointBlock;
}

class SourcePages : public PageContents {
 public:
  explicit SourcePages(LiveSource& source) : source_(source) {}
  Status read(uint32_t member, std::span<const PageRange> ranges,
              std::span<std::byte> into) const override {
    source_.read(member, ranges, into);
    return {};
  }

 private:
  LiveSource& source_;
};

}  // namespace

LivePart::~LivePart() = default;

Result<std::shared_ptr<LivePart>> LivePart::write(LiveSource& source, const PartOrder& order) {
  auto store = CheckpointStore::open(order.folder, true);
  if (!store) return store.error();
  order.on_step("live");
  std::shared_ptr<LivePart> part(new LivePart);
  const std::string& path = part->path_ = store->part_path(order.version, order.node);
  // Each time some of a block may be left.
  part->room_ = whole_blocks(source.bytes()) + (source.bytes() / kAtOnce + 2) * kCheckpointBlock;
  auto writer = PartWriter::begin(
      path, part->room_,
      {.compress = order.compress, .spare = store->spare_path(order.node, part->room_)});
  Status done = writer ? Status() : Status(writer.error());
  if (writer) part->writer_ = std::move(*writer);
  if (order.progress) order.progress->total = source.bytes();
  for (bool is_done = false; done && !is_done;) done = part->write_next(source, order, is_done);
  if (done) return part;
  part->discard();
  return done.error();
}

void LivePart::discard() {
  writer_.reset();
  unlink(PartWriter::unfinished(path_).c_str());
}

Status LivePart::write_next(LiveSource& source, const PartOrder& order, bool& is_done) {
  const auto pids = source.members();
  const uint64_t first = page_bytes_;
  std::vector<PartRange> ranges;
  for (const auto& [member, range] : source.next(kAtOnce)) {
    ranges.push_back({.member = member,
                      .version = order.version,
                      .address = range.start.value,
                      .bytes = range.bytes,
                      .offset = page_bytes_});
    page_bytes_ += range.bytes;
    ranges_[std::to_string(pids.at(member))].push_back(ranges.back());
  }
  page_bytes_ = whole_blocks(page_bytes_);
  is_done = ranges.empty();
  if (is_done) return {};
  if (page_bytes_ > room_) return errno_error("more pages than there were", EFBIG);
  order.on_step("live pages");
  return write_pages(SourcePages(source), ranges, {first, page_bytes_}, *writer_, order.progress);
}

Result<std::unique_ptr<PartWriter>> LivePart::complete(const PartContents& contents) {
  if (!writer_) return errno_error("it has been completed", EINVAL);
  if (auto done = writer_->complete(contents); !done) return done.error();
  return std::move(writer_);
}

}  // namespace krg
