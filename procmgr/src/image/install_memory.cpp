// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>

#include "image/capture_parts.h"
#include "image/install_parts.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "process_spec.h"

namespace krg {
namespace {

constexpr uint64_t kLowest = 1u << 20;
constexpr uint64_t kEnd = 0x7fff'ffff'f000;  // of user memory on x86-64
constexpr uint64_t kGap = 1u << 20;          // free memory around krgd's
constexpr int kMapDroppable = 0x08;
constexpr uint64_t kLockOnFault = 1;  // mlock2(2)
constexpr int kMergeableAdvice = 12, kWipeAdvice = 18;

struct Range {
  uint64_t start, end;
  bool overlaps(const Range& other) const { return start < other.end && other.start < end; }
};

Range bounds(const std::vector<ImageMapping>& mappings) {
  Range range{~0ULL, 0};
  for (const ImageMapping& m : mappings) {
    range.start = std::min(range.start, m.start.value);
    range.end = std::max(range.end, m.end().value);
  }
  return range;
}

std::vector<ImageMapping> kernel_mappings(const std::vector<ImageMapping>& all) {
  std::vector<ImageMapping> kernels;
  std::copy_if(all.begin(), all.end(), std::back_inserter(kernels),
               [](const ImageMapping& m) { return m.kind == ImageMapping::Kind::kKernel; });
  return kernels;
}

// The first hole of kGap that neither has anything in.
uint64_t find_hole(const std::vector<ImageMapping>& a, const std::vector<ImageMapping>& b) {
  std::vector<Range> taken;
  for (const auto* mappings : {&a, &b})
    for (const ImageMapping& m : *mappings) taken.push_back({m.start.value, m.end().value});
  std::sort(taken.begin(), taken.end(),
            [](const Range& x, const Range& y) { return x.start < y.start; });
  uint64_t at = kLowest;
  for (const Range& range : taken) {
    if (range.start >= at + kGap) break;
    at = std::max(at, range.end);
  }
  return at;
}

Status unmap(FrozenProcess& process, uint64_t start, uint64_t end) {
  if (start >= end) return {};
  return done_by_call("munmap", process.call(SYS_munmap, {start, end - start}));
}

// All but the kernel's mappings and krgd's, which lie apart.
Status unmap_program(FrozenProcess& process, Range kernels, Range helpers) {
  if (kernels.end == 0) kernels = helpers;
  const Range lower = kernels.start < helpers.start ? kernels : helpers;
  const Range upper = kernels.start < helpers.start ? helpers : kernels;
  if (auto done = unmap(process, 0, lower.start); !done) return done;
  if (auto done = unmap(process, lower.end, upper.start); !done) return done;
  return unmap(process, upper.end, kEnd);
}

Status move_mapping(FrozenProcess& process, const ImageMapping& mapping, uint64_t to) {
  if (mapping.start.value == to) return {};
  const int64_t moved = process.call(SYS_mremap, {mapping.start.value, mapping.bytes, mapping.bytes,
                                                  MREMAP_MAYMOVE | MREMAP_FIXED, to});
  return done_by_call("moving the vdso", moved);
}

// The kernel's functions go to where the program knows them to be.
Status move_kernel_mappings(FrozenProcess& process, std::vector<ImageMapping> from,
                            const std::vector<ImageMapping>& to, uint64_t hole) {
  if (bounds(from).start == bounds(to).start) return {};
  Range old = bounds(from);
  if (old.overlaps(bounds(to)))
    for (ImageMapping& mapping : from) {
      const uint64_t between = hole + (mapping.start.value - old.start);
      if (auto moved = move_mapping(process, mapping, between); !moved) return moved;
      mapping.start = RemoteAddr{between};
    }
  for (size_t i = 0; i < from.size(); ++i)
    if (auto moved = move_mapping(process, from[i], to[i].start.value); !moved) return moved;
  return {};
}

bool are_alike(const std::vector<ImageMapping>& a, const std::vector<ImageMapping>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const ImageMapping& x, const ImageMapping& y) {
                      return x.name == y.name && x.bytes == y.bytes;
                    });
}

uint64_t map_flags(const ImageMapping& m) {
  uint64_t flags = MAP_FIXED_NOREPLACE | kUnnotifiedMapFlags;
  if (m.advice & ImageMapping::kShared)
    flags |= MAP_SHARED;
  else if (m.advice & ImageMapping::kDroppable)
    flags |= kMapDroppable;
  else
    flags |= MAP_PRIVATE;
  if (m.kind == ImageMapping::Kind::kAnonymous) flags |= MAP_ANONYMOUS;
  if (m.advice & ImageMapping::kGrowsDown) flags |= MAP_GROWSDOWN;
  if (m.advice & ImageMapping::kNoReserve) flags |= MAP_NORESERVE;
  return flags;
}

Status advise(FrozenProcess& process, const ImageMapping& m) {
  static constexpr std::pair<uint32_t, int> kAdvice[] = {
      {ImageMapping::kDontFork, MADV_DONTFORK},     {ImageMapping::kWipeOnFork, kWipeAdvice},
      {ImageMapping::kHugePages, MADV_HUGEPAGE},    {ImageMapping::kNoHugePages, MADV_NOHUGEPAGE},
      {ImageMapping::kMergeable, kMergeableAdvice}, {ImageMapping::kDontDump, MADV_DONTDUMP},
      {ImageMapping::kSequential, MADV_SEQUENTIAL}, {ImageMapping::kRandom, MADV_RANDOM}};
  for (const auto& [bit, advice] : kAdvice) {
    if (!(m.advice & bit) || (m.advice & ImageMapping::kDroppable)) continue;
    const int64_t done =
        process.call(SYS_madvise, {m.start.value, m.bytes, static_cast<uint64_t>(advice)});
    // A kernel without that kind of page has nothing to be advised on.
    if (done < 0 && done != -EINVAL) return done_by_call("madvise", done);
  }
  if (!(m.advice & ImageMapping::kLocked)) return {};
  return done_by_call("mlock2", process.call(SYS_mlock2, {m.start.value, m.bytes, kLockOnFault}));
}

Status map(FrozenProcess& process, const ImageMapping& m, int first_file) {
  const bool has_file = m.kind == ImageMapping::Kind::kFile;
  const uint64_t file = has_file ? static_cast<uint64_t>(first_file) + m.file : ~0ULL;
  const int64_t at =
      process.call(SYS_mmap, {m.start.value, m.bytes, m.protection, map_flags(m), file, m.offset});
  if (at != static_cast<int64_t>(m.start.value)) return done_by_call("mmap", at < 0 ? at : -EEXIST);
  return m.advice == 0 ? Status() : advise(process, m);
}

}  // namespace

Status done_by_call(const char* what, int64_t result) {
  if (result >= 0) return {};
  return errno_error(what, static_cast<int>(-result));
}

Status install_memory(FrozenProcess& process, const ProcessImage& image, int first_file) {
  std::vector<ImageFile> own_files;
  auto own = read_mappings(process.pid(), own_files);
  if (!own) return own.error();
  const auto kernels = kernel_mappings(*own), wanted = kernel_mappings(image.mappings);
  auto hash = hash_of_vdso(process, kernels);
  if (!hash) return hash.error();
  if (!wanted.empty() && (*hash != image.vdso_hash || !are_alike(kernels, wanted)))
    return cannot_move("another kernel's vdso");

  const uint64_t hole = find_hole(*own, image.mappings);
  if (auto in = process.move_in(RemoteAddr{hole}); !in) return in;
  const Range helpers{hole, hole + FrozenProcess::kHelperBytes};
  if (auto gone = unmap_program(process, bounds(kernels), helpers); !gone) return gone;
  if (!wanted.empty())
    if (auto moved = move_kernel_mappings(process, kernels, wanted, helpers.end); !moved)
      return moved;
  for (const ImageMapping& mapping : image.mappings)
    if (mapping.kind != ImageMapping::Kind::kKernel)
      if (auto mapped = map(process, mapping, first_file); !mapped) return mapped;
  return {};
}

}  // namespace krg
