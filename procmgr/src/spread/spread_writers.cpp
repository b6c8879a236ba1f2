// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_writers.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include "spread/spread_process.h"
#include "whole_file.h"

namespace krg {
namespace {

// Smaller blocks are not malloc's (M_MMAP_THRESHOLD), but the C library's and the loader's own.
constexpr uint64_t kLeastBlock = 128u << 10;

enum class Owner { kNobody, kProgram, kLibrary };

}  // namespace

bool wants_multiple_writers(pid_t pid) {
  auto environment = read_whole_file(fmt::format("/proc/{}/environ", pid));
  return environment && ('\0' + *environment).find(fmt::format("{}KRG_MULTIPLE_WRITERS=", '\0')) !=
                            std::string::npos;
}

// Anonymous memory right behind a file's is that file's, too (.bss).
std::vector<SpreadRange> one_writer_ranges(const ProcessImage& image) {
  std::vector<SpreadRange> ranges;
  Owner owner = Owner::kNobody;
  RemoteAddr last_end{};
  for (const ImageMapping& mapping : image.mappings) {
    if (mapping.kind == ImageMapping::Kind::kFile)
      owner = mapping.file == 0 ? Owner::kProgram : Owner::kLibrary;
    else if (mapping.start != last_end)
      owner = Owner::kNobody;
    last_end = mapping.end();
    const bool is_heap =
        mapping.start.value < image.layout.brk && mapping.end().value > image.layout.start_brk;
    if (is_heap) owner = Owner::kNobody;
    const bool is_stack = mapping.advice & ImageMapping::kGrowsDown;
    const bool is_small = owner == Owner::kNobody && !is_heap && mapping.bytes < kLeastBlock;
    if (!is_stack && !is_small && owner != Owner::kLibrary) continue;
    SpreadRange range;
    range.start = mapping.start;
    range.bytes = mapping.bytes;
    ranges.push_back(range);
  }
  return ranges;
}

bool has_one_writer(uint64_t bytes, uint64_t protection, uint64_t flags) {
  return bytes < kLeastBlock || protection == PROT_NONE || (flags & MAP_STACK);
}

// --- the process --------------------------------------------------------------------------------

void SpreadProcess::allow_multiple_writers() {
  for (const SpreadRange& range : parts_.one_writer) one_writer_.map(range);
  MultipleWritersOptions options;
  options.self = options.home = parts_.node.self;
  options.others = parts_.nodes;
  options.send = [this, set = set().value](NodeId to, const std::string& message) {
    TellReplicaOfWriters tell;
    tell.set = set;
    static_cast<void>(parts_.node.messenger.send(to, tell, message));
  };
  options.allows = [this](RemoteAddr address) { return !one_writer_.find(address); };
  parts_.pages->allow_multiple_writers(std::move(options));
}

void SpreadProcess::note_writers(RemoteAddr start, uint64_t bytes, bool one_writer) {
  if (!parts_.multiple_writers) return;
  one_writer_.unmap(start, bytes);
  SpreadRange range;
  range.start = start;
  range.bytes = bytes;
  if (one_writer) one_writer_.map(range);
}

}  // namespace krg
