// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/member_pages.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>

#include "family/left_out.h"
#include "family/page_copier.h"
#include "family/written_pages.h"
#include "image/content_ranges.h"
#include "image/install_parts.h"
#include "image/task_memory.h"
#include "process_spec.h"

namespace krg {
namespace {

constexpr uint64_t kMostApart = 256u << 20;  // of memory that no copy of a process has
// Copying so much takes as long as a fork, which copies the page tables of all.
constexpr uint64_t kLeastStaged = 1u << 20, kMostStaged = 128u << 20, kStagedPart = 16;

bool has_little_written(const std::vector<PageRange>& pages) {
  uint64_t all = 0, written = 0;
  for (const PageRange& range : pages) {
    all += range.bytes;
    written += range.is_clean ? 0 : range.bytes;
  }
  return written <= std::clamp(all / kStagedPart, kLeastStaged, kMostStaged);
}

}  // namespace

MemberPages::~MemberPages() {
  if (task == 0) return;
  kill(task, SIGKILL);
  table.forget_hidden(task);
}

Status MemberPages::take(FrozenProcess& process, const ProcessImage& image, WrittenPages* written,
                         const LivePages* live) {
  if (written) {
    auto found = written->take();
    if (!found) return found.error();
    tracked = std::move(*found);
    leave_out(tracked, left_out);
    if (live) live->mark_unsaved(process.pid(), tracked);
    is_tracked = true;
  }
  return is_tracked && has_little_written(tracked) ? stage(process) : copy_process(process, image);
}

Status MemberPages::set_copied(Result<CopiedPages> pages) {
  if (!pages) return pages.error();
  copied = std::move(*pages);
  return {};
}

Status MemberPages::stage(const FrozenProcess& process) {
  std::vector<PageRange> ranges;
  std::copy_if(tracked.begin(), tracked.end(), std::back_inserter(ranges),
               [](const PageRange& range) { return !range.is_clean; });
  return set_copied(copy_pages(process.pid(), std::move(ranges)));
}

namespace {

// Memory that nodes share is none of a copy's: krgd would have to be told of the fork, which it
// waits for itself. Tells the calls' first error.
Status advise_shared(FrozenProcess& process, const ProcessImage& image, int advice) {
  Status done;
  for (const ImageMapping& m : image.mappings) {
    if (m.kind != ImageMapping::Kind::kShared || (m.advice & ImageMapping::kDontFork)) continue;
    auto advised = done_by_call(
        "madvise",
        process.call(SYS_madvise, {m.start.value, m.bytes, static_cast<uint64_t>(advice)}));
    if (done) done = advised;
  }
  return done;
}

}  // namespace

Status MemberPages::copy_process(FrozenProcess& process, const ProcessImage& image) {
  if (auto apart = read_apart(process, image); !apart) return apart;
  Status done = advise_shared(process, image, MADV_DONTFORK);
  if (done) {
    auto made = process.clone_page_source(FrozenProcess::PageSource::kCopy);
    if (made) adopt(*made);
    if (!made) done = made.error();
  }
  const Status again = advise_shared(process, image, MADV_DOFORK);
  return done ? again : done;
}

Status MemberPages::take_at_home(const FrozenProcess& process, WrittenPages* written) {
  if (!written) return {};
  auto found = written->take();
  if (!found) return found.error();
  leave_out(*found, left_out);
  if (!has_little_written(*found)) return {};
  tracked = std::move(*found);
  is_tracked = true;
  return stage(process);
}

void MemberPages::add(StandingSpread::Memory memory) {
  if (memory.copy != 0) {
    is_tracked = false;
    tracked.clear();
    copied = {};
    of_set = std::move(memory.written);
    return adopt(memory.copy);
  }
  tracked.insert(tracked.end(), memory.set_pages.begin(), memory.set_pages.end());
  of_set = std::move(memory.written);
}

void MemberPages::adopt(pid_t copy) {
  task = copy;
  table.hide(task);
}

Status MemberPages::read_apart(const FrozenProcess& process, const ProcessImage& image) {
  constexpr uint32_t kNotCopied = ImageMapping::kDontFork | ImageMapping::kWipeOnFork;
  if (std::none_of(image.mappings.begin(), image.mappings.end(),
                   [](const ImageMapping& m) { return (m.advice & kNotCopied) != 0; }))
    return {};
  auto ranges = content_ranges(process.pid());
  if (!ranges) return ranges.error();
  uint64_t total = 0;
  std::erase_if(*ranges, [&](const PageRange& range) {
    const bool is_copied =
        std::none_of(image.mappings.begin(), image.mappings.end(), [&](const ImageMapping& m) {
          return (m.advice & kNotCopied) != 0 && m.start <= range.start && range.start < m.end();
        });
    total += is_copied ? 0 : range.bytes;
    return is_copied;
  });
  if (total > kMostApart) return cannot_move("much memory that forks do not copy");
  return set_copied(copy_pages(process.pid(), std::move(*ranges)));
}

Result<std::vector<PageRange>> MemberPages::pages() const {
  std::vector<PageRange> ranges = tracked;
  if (!is_tracked && task != 0) {
    auto found = content_ranges(task);
    if (!found) return found.error();
    ranges = std::move(*found);
    // What a copy has there is not the content.
    std::erase_if(ranges, [&](const PageRange& r) { return copied.find(r.start); });
    for (const CopiedPages* more : {&copied, &of_set})
      ranges.insert(ranges.end(), more->ranges.begin(), more->ranges.end());
  }
  leave_out(ranges, left_out);
  const auto of_shared = shared_now ? shared_now->take(shared, shared_before.get()) : shared.ranges;
  ranges.insert(ranges.end(), of_shared.begin(), of_shared.end());
  std::sort(ranges.begin(), ranges.end(),
            [](const PageRange& a, const PageRange& b) { return a.start < b.start; });
  return ranges;
}

const std::byte* MemberPages::find_all(std::span<const PageRange> ranges) const {
  const std::byte* known = copied.find_all(ranges);
  if (!known) known = shared.find_all(ranges);
  return known ? known : of_set.find_all(ranges);
}

Status MemberPages::read(std::span<const PageRange> ranges, std::span<std::byte> into) const {
  std::vector<MemoryPiece> pieces;
  uint64_t waiting = 0;  // bytes of `pieces`, which `into` begins with
  const auto read_pieces = [&]() -> Status {
    if (pieces.empty()) return {};
    auto memory = TaskMemory::open(task);
    if (!memory) return memory.error();
    auto done = memory->read(pieces, into.first(waiting));
    into = into.subspan(waiting);
    waiting = 0;
    pieces.clear();
    return done;
  };
  for (const PageRange& range : ranges) {
    const std::byte* known = copied.find(range.start);
    if (!known) known = shared.find(range.start);
    if (!known) known = of_set.find(range.start);
    if (!known) {
      pieces.push_back({range.start, range.bytes});
      waiting += range.bytes;
      continue;
    }
    if (auto done = read_pieces(); !done) return done;
    std::copy_n(known, range.bytes, into.begin());
    into = into.subspan(range.bytes);
  }
  return read_pieces();
}

}  // namespace krg
