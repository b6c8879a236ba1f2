// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/first_pages.h"

#include <algorithm>
#include <cstdint>
#include <set>

#include "image/image_installer.h"
#include "image/page_list.h"

namespace krg {
namespace {

// Around the stack pointer: what a function has below it (the red zone, its next calls), and the
// frames above.
constexpr uint64_t kBelowStack = 2048, kAboveStack = 8192;
// The thread's own variables end where its thread pointer points to, its control block begins
// there.
constexpr uint64_t kAroundThreadPointer = 2048;
// Variables of programs and libraries, the heap's first pages: what is written in pieces.
constexpr uint64_t kSmallBytes = 32u << 10;

uint64_t page_of(uint64_t address) {
  return address / kMovedPageBytes * kMovedPageBytes;
}

class Wanted {
 public:
  Wanted(const std::vector<PageRange>& ranges, uint64_t most_bytes)
      : ranges_(ranges), room_(most_bytes / kMovedPageBytes) {}

  void add(uint64_t address) {
    const uint64_t page = page_of(address);
    if (room_ == pages_.size() || !has_content(page)) return;
    pages_.insert(page);
  }
  void add(uint64_t start, uint64_t end) {
    for (uint64_t page = page_of(start); page < end; page += kMovedPageBytes) add(page);
  }
  uint64_t room() const { return (room_ - pages_.size()) * kMovedPageBytes; }
  const std::set<uint64_t>& pages() const { return pages_; }

 private:
  bool has_content(uint64_t page) const {
    auto behind = std::upper_bound(
        ranges_.begin(), ranges_.end(), page,
        [](uint64_t at, const PageRange& range) { return at < range.start.value; });
    return behind != ranges_.begin() && page < std::prev(behind)->end().value;
  }

  const std::vector<PageRange>& ranges_;
  const uint64_t room_;
  std::set<uint64_t> pages_;
};

void add_thread(Wanted& wanted, const ImageThread& thread) {
  const user_regs_struct& r = thread.registers;
  wanted.add(r.rsp - kBelowStack, r.rsp + kAboveStack);
  wanted.add(r.fs_base - kAroundThreadPointer, r.fs_base + kAroundThreadPointer);
  for (uint64_t value : {r.rbx, r.rbp, r.rdi, r.rsi, r.rdx, r.rcx, r.rax, r.r8, r.r9, r.r10, r.r11,
                         r.r12, r.r13, r.r14, r.r15, r.rip})
    wanted.add(value);
}

// All that come first, or none: a few of them would not let it run earlier.
void add_those_that_come_first(Wanted& wanted, const std::vector<PageRange>& ranges) {
  uint64_t bytes = 0;
  for (const PageRange& range : ranges)
    if (range.comes_first) bytes += range.bytes;
  if (bytes > wanted.room()) return;
  for (const PageRange& range : ranges)
    if (range.comes_first) wanted.add(range.start.value, range.end().value);
}

// Each page that is not there costs two messages, when it is touched.
void add_small_ranges(Wanted& wanted, const std::vector<PageRange>& ranges) {
  for (const PageRange& range : ranges)
    if (range.bytes <= kSmallBytes && range.bytes <= wanted.room())
      wanted.add(range.start.value, range.end().value);
}

PageRange part_of(PageRange range, uint64_t start, uint64_t end) {
  if (end - start != range.bytes) range.is_huge = 0;
  range.start = RemoteAddr{start};
  range.bytes = end - start;
  return range;
}

struct Interval {
  uint64_t start, end;
};

// In order, none touching the next.
std::vector<Interval> joined(std::vector<Interval> all) {
  std::ranges::sort(all, {}, &Interval::start);
  std::vector<Interval> apart;
  for (const Interval& one : all) {
    if (!apart.empty() && one.start <= apart.back().end)
      apart.back().end = std::max(apart.back().end, one.end);
    else
      apart.push_back(one);
  }
  return apart;
}

std::vector<Interval> first_memory(const ProcessImage& image) {
  std::vector<Interval> found;
  const auto add = [&](uint64_t start, uint64_t end) {
    if (start < end) found.push_back({page_of(start), page_of(end + kMovedPageBytes - 1)});
  };
  for (RemoteAddr page : pages_before_thaw(image)) add(page.value, page.value + kMovedPageBytes);
  for (const ImageMapping& mapping : image.mappings)
    if (mapping.kind != ImageMapping::Kind::kAnonymous)
      add(mapping.start.value, mapping.end().value);
  add(image.layout.arg_start, image.layout.arg_end);
  add(image.layout.env_start, image.layout.env_end);
  return joined(std::move(found));
}

}  // namespace

std::vector<PageRange> mark_first_pages(const std::vector<PageRange>& ranges,
                                        const ProcessImage& image) {
  const std::vector<Interval> first = first_memory(image);
  std::vector<PageRange> marked;
  auto next = first.begin();
  for (const PageRange& range : ranges) {
    uint64_t at = range.start.value;
    const auto append = [&](uint64_t end, bool comes_first) {
      if (at >= end) return;
      marked.push_back(part_of(range, at, end));
      marked.back().comes_first = comes_first;
      at = end;
    };
    while (next != first.end() && next->end <= at) ++next;
    for (auto one = next; one != first.end() && one->start < range.end().value; ++one) {
      append(std::max(at, one->start), false);
      append(std::min(one->end, range.end().value), true);
    }
    append(range.end().value, false);
  }
  return marked;
}

std::vector<PageRange> take_first_pages(std::vector<PageRange>& ranges, const ProcessImage& image,
                                        uint64_t most_bytes) {
  Wanted wanted(ranges, most_bytes);
  for (RemoteAddr page : pages_before_thaw(image)) wanted.add(page.value);
  add_those_that_come_first(wanted, ranges);
  for (const ImageThread& thread : image.threads) add_thread(wanted, thread);
  add_small_ranges(wanted, ranges);

  std::vector<PageRange> taken, rest;
  auto page = wanted.pages().begin();
  for (const PageRange& range : ranges) {
    uint64_t at = range.start.value;
    while (page != wanted.pages().end() && *page < range.end().value) {
      const uint64_t start = *page;
      uint64_t end = start;
      for (; page != wanted.pages().end() && *page == end && end < range.end().value; ++page)
        end += kMovedPageBytes;
      if (at < start) rest.push_back(part_of(range, at, start));
      taken.push_back(part_of(range, start, end));
      at = end;
    }
    if (at < range.end().value) rest.push_back(part_of(range, at, range.end().value));
  }
  ranges = std::move(rest);
  return taken;
}

}  // namespace krg
