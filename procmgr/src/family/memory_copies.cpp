// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/memory_copies.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "image/page_list.h"
#include "krg/runtime/run_after.h"
#include "krg/shmem/page_set.h"
#include "packed_bytes.h"
#include "process_spec.h"

namespace krg {
namespace {

// How long it is waited for pages that are on their way between nodes.
constexpr std::chrono::milliseconds kTick{1};
constexpr int kTries = 5000;

void append(std::vector<PageRange>& ranges, PageIndex page) {
  const uint64_t at = page.value * kPageBytes;
  if (!ranges.empty() && ranges.back().end().value == at)
    ranges.back().bytes += kPageBytes;
  else
    ranges.push_back({.start = {at}, .bytes = kPageBytes, .is_clean = true});
}

}  // namespace

std::vector<PageRange> CopiedMemory::ranges() const {
  std::vector<PageRange> all;
  std::merge(clean.begin(), clean.end(), changed.ranges.begin(), changed.ranges.end(),
             std::back_inserter(all),
             [](const PageRange& a, const PageRange& b) { return a.start < b.start; });
  return all;
}

struct MemoryCopies::File {
  MemoryRow row;
  std::optional<PageMarks> before =
      {};                  // what this node had in the capture before; none: not known
  PageMarks content = {};  // what it has in this one
  CopiedMemory copy = {};
  std::vector<PageIndex> pages = {};  // that are copied, each to its place in `changed`
  std::vector<bool> is_zero = {};     // of those

  void add(PageIndex page, std::span<const std::byte> bytes) {
    const auto at =
        static_cast<size_t>(std::lower_bound(pages.begin(), pages.end(), page) - pages.begin());
    is_zero[at] = is_zero_page(bytes.data());
    if (!is_zero[at])
      std::memcpy(copy.changed.bytes.get() + at * kPageBytes, bytes.data(), kPageBytes);
  }
  // All pages are there.
  void close() {
    CopiedPages& changed = copy.changed;
    for (size_t at = 0; at < pages.size(); ++at) {
      if (is_zero[at]) continue;
      content.add(pages[at]);
      if (at > 0 && !is_zero[at - 1] && pages[at].value == pages[at - 1].value + 1) {
        changed.ranges.back().bytes += kPageBytes;
        continue;
      }
      changed.ranges.push_back({.start = {pages[at].value * kPageBytes}, .bytes = kPageBytes});
      changed.offsets.push_back(at * kPageBytes);
    }
  }
};

MemoryCopies::MemoryCopies(NodeContext& node, SharedMemory& memory, FamilyTracking* tracking)
    : node_(node), memory_(memory), tracking_(tracking) {}

size_t MemoryCopies::living_nodes() const {
  size_t living = 0;
  for (uint16_t n = 0; n < node_.node_count; ++n) living += !node_.messenger.is_failed(NodeId{n});
  return living;
}

// ---- to rest ----

void MemoryCopies::settle(std::vector<MemoryRow> rows, uint64_t base,
                          std::function<void(Result<std::string>)> done) {
  for (MemoryRow& row : rows) files_.push_back(std::make_shared<File>(File{.row = row}));
  try_to_settle(base, kTries, std::move(done));
}

Status MemoryCopies::look() const {
  for (const FilePtr& file : files_)
    if (auto owned = memory_.owned(file->row.file); !owned) return owned.error();
  return {};
}

void MemoryCopies::try_to_settle(uint64_t base, int tries,
                                 std::function<void(Result<std::string>)> done) {
  const Status rests = look();
  if (rests) return settled(base, done);
  if (rests.error().errno_or(0) != EAGAIN) return done(rests.error());
  if (tries == 0) return done(errno_error("memory that nodes share does not come to rest", EBUSY));
  run_after(node_.loop, kTick, [self = shared_from_this(), base, tries, done = std::move(done)] {
    self->try_to_settle(base, tries - 1, done);
  });
}

void MemoryCopies::settled(uint64_t base, const std::function<void(Result<std::string>)>& done) {
  PackedWriter out;
  for (const FilePtr& file : files_) {
    auto written = memory_.take_written(file->row.file);
    if (tracking_ && base != 0)
      file->before = tracking_->memory_since(base, file->row.file, living_nodes());
    if (!file->before) written.reset();
    out.put_string(PageMarks::pack(written));
  }
  done(out.take());
}

// ---- copying ----

// A page that somebody has written its owner has; what others had of this node's stays as it is in
// the capture before.
Status MemoryCopies::plan(File& file, std::string_view written) {
  auto owned = memory_.owned(file.row.file);
  if (!owned) return owned.error();
  PageMarks changed;
  const bool is_known = changed.add_packed(written) && file.before;
  for (uint64_t page = 0; is_known && page < file.row.pages; ++page)
    if (file.before->has({page}) && !changed.has({page})) {
      append(file.copy.clean, {page});
      file.content.add(PageIndex{page});
    }
  file.before.reset();
  for (PageIndex page : *owned)
    if (page.value < file.row.pages && (!is_known || changed.has(page))) file.pages.push_back(page);
  return {};
}

Result<bool> MemoryCopies::begin(uint64_t capture, std::string_view written) {
  capture_ = capture;
  uint64_t pages = 0;
  bool has_any = false;
  PackedReader in(written);
  for (const FilePtr& file : files_) {
    if (auto planned = plan(*file, in.get_string()); !planned) return planned.error();
    pages += file->pages.size();
    has_any |= !file->pages.empty() || !file->copy.clean.empty();
  }
  if (pages * kPageBytes > kMostSharedBytes) return cannot_move("much memory that nodes share");
  for (const FilePtr& file : files_) {
    auto buffer = PageBuffer::make(file->pages.size() * kPageBytes);
    if (!buffer) return buffer.error();
    file->copy.changed.bytes = std::move(*buffer);
    file->is_zero.resize(file->pages.size());
  }
  for (const FilePtr& file : files_) {
    ++under_way_;
    memory_.use_before_change(
        file->row.file, file->pages,
        [file](PageIndex page, std::span<const std::byte> bytes) { file->add(page, bytes); },
        [self = shared_from_this(), file](const Status& how) { self->copied(file, how); });
  }
  return has_any;
}

void MemoryCopies::copied(const FilePtr& file, const Status& how) {
  if (!how) failure_ = how.error();
  file->close();
  if (how && tracking_)
    tracking_->begin_memory(capture_, file->row.file, living_nodes(), std::move(file->content));
  if (--under_way_ == 0 && done_) finish(std::exchange(done_, nullptr));
}

void MemoryCopies::finish(std::function<void(Status)> done) {
  if (under_way_ > 0)
    done_ = std::move(done);
  else
    done(failure_ ? Status(*failure_) : Status());
}

std::map<uint32_t, CopiedMemory> MemoryCopies::take() {
  std::map<uint32_t, CopiedMemory> copies;
  for (const FilePtr& file : files_) copies[file->row.owner] = std::move(file->copy);
  files_.clear();
  return copies;
}

}  // namespace krg
