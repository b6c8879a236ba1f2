// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <optional>

#include "image/call_batch.h"
#include "image/capture_parts.h"
#include "image/install_parts.h"
#include "image/other_vdso.h"
#include "krg/procmgr/saved_ipc.h"
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

// The calls that make the memory, and what each is for.
class MemoryCalls {
 public:
  explicit MemoryCalls(FrozenProcess& process) : batch_(process) {}

  void add(const char* what, long number, FrozenThread::Arguments arguments,
           std::optional<uint64_t> wanted = std::nullopt, bool may_be_unknown = false) {
    batch_.add(number, arguments);
    expected_.push_back({what, wanted, may_be_unknown});
  }
  Status run() {
    if (auto run = batch_.run(); !run) return run;
    for (size_t i = 0; i < expected_.size(); ++i) {
      const int64_t result = batch_.result(i);
      const Expected& expected = expected_[i];
      // A kernel without that kind of page has nothing to be advised on.
      if (expected.may_be_unknown && result == -EINVAL) continue;
      if (auto done = done_by_call(expected.what, result); !done) return done;
      if (expected.wanted && static_cast<uint64_t>(result) != *expected.wanted)
        return errno_error(expected.what, EEXIST);
    }
    return {};
  }

 private:
  struct Expected {
    const char* what;
    std::optional<uint64_t> wanted;
    bool may_be_unknown;
  };
  CallBatch batch_;
  std::vector<Expected> expected_;
};

void unmap(MemoryCalls& calls, uint64_t start, uint64_t end) {
  if (start < end) calls.add("munmap", SYS_munmap, {start, end - start});
}

// All but the kernel's mappings and krgd's, which lie apart.
void unmap_program(MemoryCalls& calls, Range kernels, Range helpers) {
  if (kernels.end == 0) kernels = helpers;
  const Range lower = kernels.start < helpers.start ? kernels : helpers;
  const Range upper = kernels.start < helpers.start ? helpers : kernels;
  unmap(calls, 0, lower.start);
  unmap(calls, lower.end, upper.start);
  unmap(calls, upper.end, kEnd);
}

void move_mapping(MemoryCalls& calls, const ImageMapping& mapping, uint64_t to) {
  if (mapping.start.value == to) return;
  calls.add("moving the vdso", SYS_mremap,
            {mapping.start.value, mapping.bytes, mapping.bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to});
}

// The kernel's functions go to where the program knows them to be.
void move_kernel_mappings(MemoryCalls& calls, std::vector<ImageMapping> from,
                          const std::vector<ImageMapping>& to, uint64_t hole) {
  if (bounds(from).start == bounds(to).start) return;
  const Range old = bounds(from);
  if (old.overlaps(bounds(to)))
    for (ImageMapping& mapping : from) {
      const uint64_t between = hole + (mapping.start.value - old.start);
      move_mapping(calls, mapping, between);
      mapping.start = RemoteAddr{between};
    }
  for (size_t i = 0; i < from.size(); ++i) move_mapping(calls, from[i], to[i].start.value);
}

bool are_alike(const std::vector<ImageMapping>& a, const std::vector<ImageMapping>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const ImageMapping& x, const ImageMapping& y) {
                      return x.name == y.name && x.bytes == y.bytes;
                    });
}

// Where krgd's own memory is until the process goes on, and that is as large as theirs at least.
std::vector<ImageMapping> moved_to(std::vector<ImageMapping> mappings, uint64_t start) {
  const uint64_t old = bounds(mappings).start;
  for (ImageMapping& mapping : mappings) mapping.start.value += start - old;
  return mappings;
}

// In its place there will be jumps to this kernel's. What else it has, none of that may be needed
// any more.
Status map_other_vdso(MemoryCalls& calls, const ProcessImage& image) {
  const ImageMapping* vdso = find_vdso(image.mappings);
  if (vdso == nullptr || vdso->bytes != image.vdso.size())
    return cannot_move("another kernel's vdso");
  for (const ImageThread& thread : image.threads)
    if (thread.registers.rip >= vdso->start.value && thread.registers.rip < vdso->end().value)
      return errno_error("one of its threads is just in its kernel's vdso", EAGAIN);
  constexpr uint64_t kFlags =
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | kUnnotifiedMapFlags;
  calls.add("mapping of the vdso", SYS_mmap,
            {vdso->start.value, vdso->bytes, PROT_READ | PROT_EXEC, kFlags, ~0ULL, 0},
            vdso->start.value);
  return {};
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

void advise(MemoryCalls& calls, const ImageMapping& m) {
  static constexpr std::pair<uint32_t, int> kAdvice[] = {
      {ImageMapping::kDontFork, MADV_DONTFORK},     {ImageMapping::kWipeOnFork, kWipeAdvice},
      {ImageMapping::kHugePages, MADV_HUGEPAGE},    {ImageMapping::kNoHugePages, MADV_NOHUGEPAGE},
      {ImageMapping::kMergeable, kMergeableAdvice}, {ImageMapping::kDontDump, MADV_DONTDUMP},
      {ImageMapping::kSequential, MADV_SEQUENTIAL}, {ImageMapping::kRandom, MADV_RANDOM}};
  for (const auto& [bit, advice] : kAdvice) {
    if (!(m.advice & bit) || (m.advice & ImageMapping::kDroppable)) continue;
    calls.add("madvise", SYS_madvise, {m.start.value, m.bytes, static_cast<uint64_t>(advice)},
              std::nullopt, true);
  }
  if (m.advice & ImageMapping::kLocked)
    calls.add("mlock2", SYS_mlock2, {m.start.value, m.bytes, kLockOnFault});
}

// The whole of a System V segment; its parts have their protections afterwards.
void attach(MemoryCalls& calls, const ImageMapping& m) {
  const auto id = static_cast<uint64_t>(segment_of_memory(m.name));
  const uint64_t flags = m.advice & ImageMapping::kMayWrite ? 0 : SHM_RDONLY;
  calls.add("shmat", SYS_shmat, {id, m.start.value, flags}, m.start.value);
}

bool is_attached(const ImageMapping& m) {
  return segment_of_memory(m.name) >= 0;
}

void map(MemoryCalls& calls, const ImageMapping& m, int first_file) {
  const bool has_file = m.kind == ImageMapping::Kind::kFile;
  const uint64_t file = has_file ? static_cast<uint64_t>(first_file) + m.file : ~0ULL;
  if (is_attached(m)) {
    calls.add("mprotect", SYS_mprotect, {m.start.value, m.bytes, m.protection});
    return advise(calls, m);
  }
  calls.add("mmap", SYS_mmap, {m.start.value, m.bytes, m.protection, map_flags(m), file, m.offset},
            m.start.value);
  advise(calls, m);
}

}  // namespace

Status done_by_call(const char* what, int64_t result) {
  if (result >= 0) return {};
  return errno_error(what, static_cast<int>(-result));
}

Status move_descriptor(FrozenProcess& process, uint64_t from, uint64_t to, int flags) {
  if (from == to) {
    const uint64_t closes = (flags & O_CLOEXEC) != 0 ? FD_CLOEXEC : 0;
    return done_by_call("fcntl", process.call(SYS_fcntl, {from, F_SETFD, closes}));
  }
  const int64_t placed = process.call(SYS_dup3, {from, to, static_cast<uint64_t>(flags)});
  process.call(SYS_close, {from});
  return done_by_call("dup3", placed);
}

Status install_memory(FrozenProcess& process, const ProcessImage& image, int first_file) {
  auto own = list_mappings(process.pid());
  if (!own) return own.error();
  const auto kernels = kernel_mappings(*own), wanted = kernel_mappings(image.mappings);
  auto vdso = read_vdso(process, kernels);
  if (!vdso) return vdso.error();
  const bool is_led = !wanted.empty() && (*vdso != image.vdso || !are_alike(kernels, wanted));
  if (is_led && (vdso->empty() || image.vdso.empty())) return cannot_move("another kernel's vdso");

  const uint64_t hole = find_hole(*own, image.mappings);
  if (auto in = process.move_in(RemoteAddr{hole}); !in) return in;
  const Range helpers{hole, hole + FrozenProcess::kHelperBytes};
  MemoryCalls calls(process);
  unmap_program(calls, bounds(kernels), helpers);
  const auto placed = is_led ? moved_to(kernels, helpers.end) : wanted;
  if (!wanted.empty()) move_kernel_mappings(calls, kernels, placed, helpers.end);
  if (is_led)
    if (auto led = map_other_vdso(calls, image); !led) return led;
  for (const ImageMapping& mapping : image.mappings)
    if (is_attached(mapping) && mapping.offset == 0) attach(calls, mapping);
  for (const ImageMapping& mapping : image.mappings)
    if (mapping.kind != ImageMapping::Kind::kKernel && mapping.kind != ImageMapping::Kind::kShared)
      map(calls, mapping, first_file);
  if (auto run = calls.run(); !run || !is_led) return run;
  auto led = lead_vdso(image.vdso, *vdso, find_vdso(placed)->start);
  return led ? process.write(find_vdso(wanted)->start, *led) : led.error();
}

}  // namespace krg
