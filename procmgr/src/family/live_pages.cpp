// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/live_pages.h"

#include <algorithm>
#include <utility>

#include "family/left_out.h"
#include "image/content_ranges.h"
#include "image/task_memory.h"

namespace krg {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kSpan = 32u << 20;  // looked at again at once

// What is protected and has not been written; the process runs. What cannot be told is none.
std::vector<PageRange> clean_pages(const LivePages::Member& member, RemoteAddr start,
                                   RemoteAddr end) {
  auto ranges = content_ranges_within(member.pid, start, end);
  if (!ranges) return {};
  std::erase_if(*ranges, [](const PageRange& r) { return !r.is_clean || r.comes_first; });
  leave_out(*ranges, member.left_out);
  return std::move(*ranges);
}

}  // namespace

LivePages::LivePages(std::vector<Member> members)
    : members_(std::move(members)), told_(members_.size()) {
  constexpr RemoteAddr kAll{UINT64_MAX};
  for (uint32_t i = 0; i < members_.size(); ++i)
    for (const PageRange& range : clean_pages(members_[i], {0}, kAll)) {
      bytes_ += range.bytes;
      // Small ones that lie near each other are looked at together.
      if (!spans_.empty() && spans_.back().member == i &&
          range.end().value - spans_.back().range.start.value <= kSpan) {
        spans_.back().range.bytes = range.end().value - spans_.back().range.start.value;
        continue;
      }
      for (uint64_t at = range.start.value; at < range.end().value; at += kSpan)
        spans_.push_back({i, {.start = {at}, .bytes = std::min(kSpan, range.end().value - at)}});
    }
}

std::vector<LivePages::Pages> LivePages::next(uint64_t wanted) {
  std::vector<Pages> found;
  uint64_t bytes = 0;
  while (next_span_ < spans_.size() && bytes < wanted) {
    const size_t before = found.size();
    add_clean(spans_[next_span_++], found);
    for (size_t i = before; i < found.size(); ++i) bytes += found[i].range.bytes;
  }
  return found;
}

void LivePages::add_clean(const Span& span, std::vector<Pages>& found) {
  const PageRange& bounds = span.range;
  for (const PageRange& range : clean_pages(members_[span.member], bounds.start, bounds.end())) {
    found.push_back({span.member, range});
    told_[span.member].push_back(range);
  }
}

void LivePages::read(uint32_t member, std::span<const PageRange> ranges,
                     std::span<std::byte> into) {
  std::vector<MemoryPiece> pieces;
  for (const PageRange& range : ranges) pieces.push_back({range.start, range.bytes});
  const auto memory = TaskMemory::open(members_[member].pid);
  if (memory && memory->read(pieces, into)) return;
  for (const PageRange& range : ranges) {
    read_one_by_one(member, range, into.first(range.bytes));
    into = into.subspan(range.bytes);
  }
}

void LivePages::read_one_by_one(uint32_t member, const PageRange& range,
                                std::span<std::byte> into) {
  const pid_t pid = members_[member].pid;
  const auto memory = TaskMemory::open(pid);
  for (uint64_t at = 0; at < range.bytes; at += kPage) {
    const MemoryPiece page{range.start + at, kPage};
    const auto room = into.subspan(at, kPage);
    if (memory && memory->read({&page, 1}, room)) continue;
    std::fill(room.begin(), room.end(), std::byte{0});
    std::lock_guard lock(mutex_);
    gone_[pid].insert(page.at.value);
  }
}

namespace {

// What has been saved of a member, for a walk through its pages from the first to the last.
class Saved {
 public:
  Saved(const std::vector<PageRange>& ranges, const std::set<uint64_t>* gone)
      : next_(ranges.begin()), end_(ranges.end()), gone_(gone) {}

  // Up to where all from `at` on is saved, or none is; at most `until`.
  std::pair<bool, uint64_t> run_at(uint64_t at, uint64_t until) {
    while (next_ != end_ && next_->end().value <= at) ++next_;
    const bool is_told = next_ != end_ && next_->start.value <= at;
    if (!is_told) return {false, next_ == end_ ? until : std::min(until, next_->start.value)};
    until = std::min(until, next_->end().value);
    if (!gone_) return {true, until};
    const auto hole = gone_->lower_bound(at);
    if (hole == gone_->end() || *hole >= until) return {true, until};
    return *hole == at ? std::pair(false, at + kPage) : std::pair(true, *hole);
  }

 private:
  std::vector<PageRange>::const_iterator next_;
  const std::vector<PageRange>::const_iterator end_;
  const std::set<uint64_t>* const gone_;
};

}  // namespace

void LivePages::mark_unsaved(pid_t pid, std::vector<PageRange>& pages) const {
  const auto known = std::find_if(members_.begin(), members_.end(),
                                  [pid](const Member& member) { return member.pid == pid; });
  static const std::vector<PageRange> kNone;
  const auto gone = gone_.find(pid);
  Saved saved(
      known == members_.end() ? kNone : told_[static_cast<size_t>(known - members_.begin())],
      gone == gone_.end() ? nullptr : &gone->second);
  std::vector<PageRange> marked;
  for (const PageRange& range : pages) {
    if (!range.is_clean) {
      marked.push_back(range);
      continue;
    }
    for (uint64_t at = range.start.value; at < range.end().value;) {
      const auto [is_saved, end] = saved.run_at(at, range.end().value);
      PageRange& piece = marked.emplace_back(range);
      piece.start = {at};
      piece.bytes = end - at;
      piece.is_clean = is_saved;
      at = end;
    }
  }
  pages = std::move(marked);
}

}  // namespace krg
