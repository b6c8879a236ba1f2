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
constexpr uint64_t kLeastForTwo = 4 * kScanSlice;  // less is scanned before a thread has begun
constexpr uint64_t kScanProtects = 3;              // PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC

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

// Of `part` of the mapping.
Status scan_part(int pagemap, uint64_t excluded, ScanFor what, const PrivateMapping& mapping,
                 const PageRange& part, Ranges& ranges) {
  const uint64_t told =
      kPageIsHuge | (what != ScanFor::kContent ? kPageIsWriteProtectable | kPageIsWritten : 0);
  const uint64_t end = part.end().value;
  std::array<PageRegion, 512> regions;
  for (uint64_t at = part.start.value; at < end;) {
    PagemapScan call{.size = sizeof call,
                     .flags = what == ScanFor::kProtecting ? kScanProtects : 0,
                     .start = at,
                     .end = end,
                     .walk_end = 0,
                     .regions = reinterpret_cast<uint64_t>(regions.data()),
                     .region_count = regions.size(),
                     .max_pages = 0,
                     .category_inverted = excluded,
                     .category_mask = excluded,
                     .category_anyof_mask = kPageIsPresent | kPageIsSwapped,
                     .return_mask = told};
    const int found = ioctl(pagemap, kPagemapScan, &call);
    if (found < 0) return errno_error("PAGEMAP_SCAN");
    for (size_t i = 0; i < static_cast<size_t>(found); ++i) {
      const uint64_t is = regions[i].categories;
      append(ranges, mapping, regions[i].start, regions[i].end, (is & kPageIsHuge) != 0,
             (is & kPageIsWriteProtectable) != 0 && (is & kPageIsWritten) == 0);
    }
    if (call.walk_end <= at) break;  // the process has ended
    at = call.walk_end;
  }
  return {};
}

// The same by two threads: each takes the next slice when it has done one.
Status scan_by_two(int pagemap, uint64_t excluded, ScanFor what, const PrivateMapping& mapping,
                   Ranges& ranges) {
  const uint64_t count = (mapping.end - mapping.start + kScanSlice - 1) / kScanSlice;
  std::vector<Ranges> found(count);
  std::vector<Status> done(count);
  std::atomic<uint64_t> next{0};
  const auto take_slices = [&] {
    for (uint64_t i = next++; i < count; i = next++) {
      const uint64_t start = mapping.start + i * kScanSlice;
      const PageRange slice{.start = {start}, .bytes = std::min(kScanSlice, mapping.end - start)};
      done[i] = scan_part(pagemap, excluded, what, mapping, slice, found[i]);
      if (!done[i]) next = count;
    }
  };
  {
    const std::jthread helper(take_slices);
    take_slices();
  }
  for (uint64_t i = 0; i < count; ++i) {
    if (!done[i]) return done[i];
    for (const PageRange& range : found[i])
      append(ranges, mapping, range.start.value, range.end().value, range.is_huge != 0,
             range.is_clean != 0);
  }
  return {};
}

// `excluded`: categories of pages without content. (Whether a page is a file's the kernel asks of
// the page itself: 40 ms a GiB, instead of 5 for its table entry.) Errors: EPERM: nothing protects
// it, and it was to be protected again.
Status scan(int pagemap, uint64_t excluded, ScanFor what, const PrivateMapping& mapping,
            Ranges& ranges) {
  if (mapping.end - mapping.start >= kLeastForTwo && has_idle_processor())
    return scan_by_two(pagemap, excluded, what, mapping, ranges);
  const PageRange all{.start = {mapping.start}, .bytes = mapping.end - mapping.start};
  return scan_part(pagemap, excluded, what, mapping, all, ranges);
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
