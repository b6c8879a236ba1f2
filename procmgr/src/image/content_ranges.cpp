// SPDX-License-Identifier: GPL-2.0-or-later
#include "content_ranges.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>

#include "idle_processor.h"
#include "image/known_mappings.h"
#include "image/task_memory.h"
#include "krg/runtime/unique_fd.h"
#include "krg/shmem/memory_abi.h"
#include "process_status.h"

namespace krg {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kScanSlice = 32u << 20;         // what one thread scans at a time
constexpr uint64_t kMostSlices = 64;               // longer ones, of memory that is reserved
constexpr uint64_t kLeastForChanges = 4u << 20;    // less is scanned in one go
constexpr uint64_t kLeastForTwo = 4 * kScanSlice;  // less is scanned before a thread has begun

// Bits of an entry of /proc/PID/pagemap.
constexpr uint64_t kEntrySoftDirty = uint64_t{1} << 55, kEntryFile = uint64_t{1} << 61,
                   kEntrySwapped = uint64_t{1} << 62, kEntryPresent = uint64_t{1} << 63;

using Ranges = std::vector<PageRange>;
// Appends what a mapping has. Errors: as content_ranges().
using Scan = std::function<Status(int pagemap, const PrivateMapping&, Ranges&)>;

// A line of /proc/PID/maps.
bool parse_private_mapping(const std::string& line, PrivateMapping& mapping) {
  char permissions[5] = "";
  uint64_t inode = 0;
  int name_at = 0;
  if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %*x %*x:%*x %" SCNu64 " %n",
                  &mapping.start, &mapping.end, permissions, &inode, &name_at) < 4)
    return false;
  const std::string_view name = std::string_view(line).substr(static_cast<size_t>(name_at));
  mapping.has_file = inode != 0;
  mapping.is_deleted = mapping.has_file && name.ends_with(kDeletedSuffix);
  return permissions[3] == 'p' && (mapping.has_file || is_programs_own(name));
}

std::vector<PrivateMapping> parse_mappings(const std::string& maps) {
  std::vector<PrivateMapping> found;
  for (size_t at = 0; at < maps.size();) {
    const size_t end = std::min(maps.find('\n', at), maps.size());
    PrivateMapping mapping{};
    if (parse_private_mapping(maps.substr(at, end - at), mapping)) found.push_back(mapping);
    at = end + 1;
  }
  return found;
}

void append(Ranges& ranges, const PrivateMapping& mapping, uint64_t start, uint64_t end,
            bool is_huge, bool is_clean) {
  if (!ranges.empty()) {
    PageRange& last = ranges.back();
    if (last.end().value == start && start != mapping.start && last.is_huge == is_huge &&
        last.is_clean == is_clean) {
      last.bytes += end - start;
      return;
    }
  }
  ranges.push_back({.start = {start},
                    .bytes = end - start,
                    .comes_first = mapping.has_file && !mapping.is_deleted,
                    .is_huge = is_huge,
                    .is_clean = is_clean});
}

enum class ScanFor { kContent, kWritten, kProtecting };  // each with the one before

// Has the kernel look through what `call` says, from `at` to its end; `told` gets what it has found
// and how far it has looked.
Status each_region(int pagemap, PagemapScan call, uint64_t at,
                   const std::function<void(std::span<const PageRegion>, uint64_t)>& told) {
  std::array<PageRegion, 512> regions;
  call.size = sizeof call;
  call.regions = reinterpret_cast<uint64_t>(regions.data());
  call.region_count = regions.size();
  while (at < call.end) {
    call.start = at;
    const int found = ioctl(pagemap, kPagemapScan, &call);
    if (found < 0) return errno_error("PAGEMAP_SCAN");
    if (call.walk_end <= at) break;  // the process has ended
    at = call.walk_end;
    told(std::span(regions).first(static_cast<size_t>(found)), at);
  }
  return {};
}

// Of `part` of the mapping.
Status scan_part(int pagemap, uint64_t excluded, ScanFor what, const PrivateMapping& mapping,
                 const PageRange& part, Ranges& ranges) {
  PagemapScan call{};
  call.flags = what == ScanFor::kProtecting ? kScanProtects : 0;
  call.end = part.end().value;
  call.category_inverted = call.category_mask = excluded;
  call.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
  call.return_mask =
      kPageIsHuge | (what != ScanFor::kContent ? kPageIsWriteProtectable | kPageIsWritten : 0);
  return each_region(pagemap, call, part.start.value,
                     [&](std::span<const PageRegion> found, uint64_t) {
                       for (const auto& [start, end, is] : found)
                         append(ranges, mapping, start, end, (is & kPageIsHuge) != 0,
                                (is & kPageIsWriteProtectable) != 0 && (is & kPageIsWritten) == 0);
                     });
}

// The same for kProtecting, without is_huge, where pages are mostly there and clean: the kernel
// needs a quarter of the time to tell the others only. REQUIRES: the mapping has no file.
Status scan_changes(int pagemap, uint64_t excluded, const PrivateMapping& mapping,
                    const PageRange& part, Ranges& ranges) {
  PagemapScan call{};
  call.flags = kScanChecks;
  call.end = part.end().value;
  call.category_inverted = kPageIsPresent;
  call.category_anyof_mask = kPageIsPresent | kPageIsWritten;  // not present, or written
  call.return_mask = kPageIsPresent | kPageIsSwapped | kPageIsWritten | excluded;
  uint64_t at = part.start.value;
  bool has_written = false;
  const auto add = [&](std::span<const PageRegion> found, uint64_t looked_to) {
    for (const auto& [start, end, is] : found) {
      if (at < start) append(ranges, mapping, at, start, false, true);
      at = end;
      if (!(is & (kPageIsPresent | kPageIsSwapped)) || (is & excluded)) continue;
      has_written |= (is & kPageIsWritten) != 0;
      append(ranges, mapping, start, end, false, !(is & kPageIsWritten));
    }
    if (at < looked_to) append(ranges, mapping, at, looked_to, false, true);
    at = looked_to;
  };
  if (auto done = each_region(pagemap, call, at, add); !done || !has_written) return done;
  call.flags = kScanProtects;
  call.category_inverted = excluded;
  call.category_mask = excluded | kPageIsWritten;
  call.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
  call.return_mask = kPageIsWritten;
  return each_region(pagemap, call, part.start.value, [](std::span<const PageRegion>, uint64_t) {});
}

bool is_mostly_written(const Ranges& ranges) {
  uint64_t all = 0, written = 0;
  for (const PageRange& range : ranges) {
    all += range.bytes;
    written += range.is_clean ? 0 : range.bytes;
  }
  return written > all / 4;
}

// A mapping's slices. Each thread takes the next one when it has done one.
class Slices {
 public:
  Slices(int pagemap, uint64_t excluded, ScanFor what, const PrivateMapping& mapping)
      : pagemap_(pagemap),
        excluded_(excluded),
        what_(what),
        mapping_(mapping),
        bytes_(std::max(kScanSlice, (mapping.end - mapping.start) / kMostSlices / kPage * kPage)),
        found_((mapping.end - mapping.start + bytes_ - 1) / bytes_),
        done_(found_.size()) {}

  void take_all() {
    bool are_clean = what_ == ScanFor::kProtecting && !mapping_.has_file;  // likely
    for (size_t i = next_++; i < found_.size(); i = next_++) {
      const uint64_t start = mapping_.start + i * bytes_;
      const PageRange slice{.start = {start}, .bytes = std::min(bytes_, mapping_.end - start)};
      done_[i] = are_clean && slice.bytes >= kLeastForChanges
                     ? scan_changes(pagemap_, excluded_, mapping_, slice, found_[i])
                     : scan_part(pagemap_, excluded_, what_, mapping_, slice, found_[i]);
      are_clean = are_clean && !is_mostly_written(found_[i]);
      if (!done_[i]) next_ = found_.size();
    }
  }

  // When all have been done: appends what they have.
  Status add_to(Ranges& ranges) const {
    for (size_t i = 0; i < found_.size(); ++i) {
      if (!done_[i]) return done_[i];
      for (const PageRange& range : found_[i])
        append(ranges, mapping_, range.start.value, range.end().value, range.is_huge != 0,
               range.is_clean != 0);
    }
    return {};
  }

 private:
  const int pagemap_;
  const uint64_t excluded_;
  const ScanFor what_;
  const PrivateMapping& mapping_;
  const uint64_t bytes_;
  std::vector<Ranges> found_;
  std::vector<Status> done_;
  std::atomic<size_t> next_{0};
};

// `excluded`: categories of pages without content. (Whether a page is a file's the kernel asks of
// the page itself: 40 ms a GiB, instead of 5 for its table entry.) Errors: EPERM: nothing protects
// it, and it was to be protected again.
Status scan(int pagemap, uint64_t excluded, ScanFor what, const PrivateMapping& mapping,
            Ranges& ranges) {
  Slices slices(pagemap, excluded, what, mapping);
  if (mapping.end - mapping.start >= kLeastForTwo && has_idle_processor()) {
    const std::jthread helper([&slices] { slices.take_all(); });
    slices.take_all();
  } else {
    slices.take_all();
  }
  return slices.add_to(ranges);
}

Status read_entries(int pagemap, bool tells_written, const PrivateMapping& mapping,
                    Ranges& ranges) {
  std::vector<uint64_t> entries(8192);
  for (uint64_t at = mapping.start; at < mapping.end;) {
    const uint64_t wanted = std::min<uint64_t>(entries.size(), (mapping.end - at) / kPage);
    const ssize_t got = pread(pagemap, entries.data(), wanted * sizeof(uint64_t),
                              static_cast<off_t>(at / kPage * sizeof(uint64_t)));
    if (got < 0) return errno_error("/proc/PID/pagemap");
    const uint64_t count = static_cast<uint64_t>(got) / sizeof(uint64_t);
    if (count == 0) break;  // the process has ended
    for (uint64_t i = 0; i < count; ++i, at += kPage) {
      const bool is_here = (entries[i] & (kEntryPresent | kEntrySwapped)) != 0;
      if (is_here && !(entries[i] & kEntryFile))
        append(ranges, mapping, at, at + kPage, false,
               tells_written && !(entries[i] & kEntrySoftDirty));
    }
  }
  return {};
}

// Whole lines come with each read, fewer than it has room for.
Result<std::string> read_maps(pid_t pid) {
  UniqueFd file(open(fmt::format("/proc/{}/maps", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno_error("/proc/PID/maps", errno == ENOENT ? ESRCH : errno);
  std::string text;
  std::array<char, 16384> piece;
  ssize_t got;
  while ((got = read(file.get(), piece.data(), piece.size())) > 0)
    text.append(piece.data(), static_cast<size_t>(got));
  if (got < 0) return errno_error("/proc/PID/maps");
  return text;
}

// Marks what lies in [start, end) of the ranges.
Ranges with_first(const Ranges& ranges, uint64_t start, uint64_t end) {
  Ranges marked;
  for (const PageRange& range : ranges) {
    const uint64_t middle = std::clamp(start, range.start.value, range.end().value);
    const uint64_t after = std::clamp(end, middle, range.end().value);
    const uint64_t bounds[] = {range.start.value, middle, after, range.end().value};
    for (int part = 0; part < 3; ++part) {
      if (bounds[part] == bounds[part + 1]) continue;
      PageRange& piece = marked.emplace_back(range);
      piece.start = {bounds[part]};
      piece.bytes = bounds[part + 1] - bounds[part];
      if (part == 1) piece.comes_first = 1;
    }
  }
  return marked;
}

// /proc/PID/cmdline and environ are read from the process's memory, by krgd's loop among others.
Ranges with_arguments_first(pid_t pid, const Ranges& ranges) {
  auto stat = read_proc_text(pid, "stat");
  const size_t name_end = stat ? stat->rfind(')') : std::string::npos;
  if (name_end == std::string::npos) return ranges;
  // Fields from the third on; the 48th is where the arguments begin, the 51st where the environment
  // ends.
  std::istringstream fields(stat->substr(name_end + 1));
  std::string field;
  uint64_t start = 0, end = 0;
  for (int number = 3; fields >> field; ++number) {
    if (number == 48) start = std::strtoull(field.c_str(), nullptr, 10);
    if (number == 51) end = std::strtoull(field.c_str(), nullptr, 10);
  }
  if (start == 0 || end <= start) return ranges;
  return with_first(ranges, start / kPage * kPage, (end + kPage - 1) / kPage * kPage);
}

// All that there is, up to the file's end: so much can be read.
Status add_deleted(pid_t pid, const PrivateMapping& mapping, Ranges& ranges) {
  auto memory = TaskMemory::open(pid);
  if (!memory) return memory.error();
  uint64_t readable = 0, unknown = (mapping.end - mapping.start) / kPage;
  while (readable < unknown) {
    const uint64_t page = readable + (unknown - readable) / 2;
    const MemoryPiece piece{{mapping.start + page * kPage}, 1};
    std::byte byte;
    if (memory->read({&piece, 1}, {&byte, 1}))
      readable = page + 1;
    else
      unknown = page;
  }
  if (readable > 0)
    append(ranges, mapping, mapping.start, mapping.start + readable * kPage, false, false);
  return {};
}

// Of each of the mappings. Errors: as content_ranges().
Result<Ranges> ranges_of(pid_t pid, int pagemap, const std::vector<PrivateMapping>& mappings,
                         const Scan& scan_mapping) {
  Ranges ranges;
  for (const PrivateMapping& mapping : mappings) {
    Status scanned = mapping.is_deleted ? add_deleted(pid, mapping, ranges)
                                        : scan_mapping(pagemap, mapping, ranges);
    if (!scanned) return scanned.error();
  }
  return ranges;
}

// With what /proc/PID/pagemap tells, entry by entry.
Result<Ranges> ranges_by_entries(pid_t pid, int pagemap,
                                 const std::vector<PrivateMapping>& mappings, bool tells_written) {
  return ranges_of(pid, pagemap, mappings,
                   [tells_written](int map, const PrivateMapping& mapping, Ranges& found) {
                     return read_entries(map, tells_written, mapping, found);
                   });
}

using ScanCategories =
    std::function<Status(int pagemap, uint64_t excluded, const PrivateMapping&, Ranges&)>;
// By PAGEMAP_SCAN. Errors: EINVAL, ENOTTY: the kernel does not have it.
Result<Ranges> ranges_by_scan(pid_t pid, int pagemap, const std::vector<PrivateMapping>& mappings,
                              const ScanCategories& scan_mapping) {
  // Kernels refuse categories that they do not know: guard regions came with Linux 6.15.
  Result<Ranges> ranges = Ranges();
  for (uint64_t excluded : {kPageIsFile | kPageIsZero | kPageIsGuard, kPageIsFile | kPageIsZero}) {
    ranges =
        ranges_of(pid, pagemap, mappings, [&](int map, const PrivateMapping& one, Ranges& found) {
          return scan_mapping(map, one.has_file ? excluded : excluded & ~kPageIsFile, one, found);
        });
    if (ranges || ranges.error().errno_or(0) != EINVAL) break;
  }
  return ranges;
}

// By the best way that the kernel has.
Result<Ranges> find_ranges(pid_t pid, const std::vector<PrivateMapping>& mappings,
                           WrittenBy told_by) {
  auto pagemap = open_pagemap(pid);
  if (!pagemap) return pagemap.error();
  if (told_by == WrittenBy::kSoftDirty)
    return ranges_by_entries(pid, pagemap->get(), mappings, true);
  const ScanFor what =
      told_by == WrittenBy::kWriteProtection ? ScanFor::kWritten : ScanFor::kContent;
  auto ranges =
      ranges_by_scan(pid, pagemap->get(), mappings,
                     [what](int map, uint64_t excluded, const PrivateMapping& mapping,
                            Ranges& found) { return scan(map, excluded, what, mapping, found); });
  if (ranges || (ranges.error().errno_or(0) != EINVAL && ranges.error().errno_or(0) != ENOTTY))
    return ranges;
  return ranges_by_entries(pid, pagemap->get(), mappings, false);
}

// Of one that was not watched all counts as written, whatever its pages look like; of a file's only
// those with pages of their own are worth it.
Status scan_protecting(int pagemap, uint64_t excluded, const PrivateMapping& mapping, Ranges& found,
                       const MappingScanned& scanned) {
  const size_t before = found.size();
  Status protecting = scan(pagemap, excluded, ScanFor::kProtecting, mapping, found);
  const bool is_watched = protecting || protecting.error().errno_or(0) != EPERM;
  if (!is_watched) protecting = scan(pagemap, excluded, ScanFor::kContent, mapping, found);
  if (!protecting || (!is_watched && mapping.has_file && found.size() == before)) return protecting;
  return scanned(mapping, pagemap, is_watched);
}

}  // namespace

Result<UniqueFd> open_pagemap(pid_t pid) {
  UniqueFd pagemap(open(fmt::format("/proc/{}/pagemap", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!pagemap)
    return errno_error(fmt::format("/proc/{}/pagemap", pid), errno == ENOENT ? ESRCH : errno);
  return pagemap;
}

Result<std::vector<PrivateMapping>> private_mappings(pid_t pid) {
  auto maps = read_maps(pid);
  if (!maps) return maps.error();
  return parse_mappings(*maps);
}

Result<Ranges> content_ranges(pid_t pid, WrittenBy told_by) {
  auto mappings = private_mappings(pid);
  if (!mappings) return mappings.error();
  auto ranges = find_ranges(pid, *mappings, told_by);
  if (!ranges) return ranges.error();
  return with_arguments_first(pid, *ranges);
}

Result<Ranges> content_ranges_within(pid_t pid, RemoteAddr start, RemoteAddr end) {
  auto mappings = private_mappings(pid);
  if (!mappings) return mappings.error();
  for (PrivateMapping& mapping : *mappings) {
    mapping.start = std::max(mapping.start, start.value);
    mapping.end = std::min(mapping.end, end.value);
  }
  // Of a deleted file's nothing is ever clean.
  std::erase_if(*mappings,
                [](const PrivateMapping& m) { return m.start >= m.end || m.is_deleted; });
  return find_ranges(pid, *mappings, WrittenBy::kWriteProtection);
}

Result<Ranges> protect_content_ranges(pid_t pid, const MappingScanned& scanned) {
  auto mappings = private_mappings(pid);
  if (!mappings) return mappings.error();
  auto pagemap = open_pagemap(pid);
  if (!pagemap) return pagemap.error();
  auto ranges = ranges_by_scan(
      pid, pagemap->get(), *mappings,
      [&scanned](int map, uint64_t excluded, const PrivateMapping& mapping, Ranges& found) {
        return scan_protecting(map, excluded, mapping, found, scanned);
      });
  if (!ranges) return ranges;
  return with_arguments_first(pid, *ranges);
}

Result<bool> has_content(pid_t pid, const PrivateMapping& mapping) {
  auto ranges = find_ranges(pid, {mapping}, WrittenBy::kNothing);
  if (!ranges) return ranges.error();
  return !ranges->empty();
}

Result<Ranges> content_ranges_by_pagemap(pid_t pid) {
  auto mappings = private_mappings(pid);
  if (!mappings) return mappings.error();
  auto pagemap = open_pagemap(pid);
  if (!pagemap) return pagemap.error();
  auto ranges = ranges_by_entries(pid, pagemap->get(), *mappings, false);
  if (!ranges) return ranges.error();
  return with_arguments_first(pid, *ranges);
}

}  // namespace krg
