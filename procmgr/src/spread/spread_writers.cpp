// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_writers.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "krg/runtime/log.h"
#include "process_environment.h"
#include "spread/spread_process.h"
#include "whole_file.h"

namespace krg {
namespace {

using namespace std::string_view_literals;

// Smaller blocks are not malloc's (M_MMAP_THRESHOLD), but the C library's and the loader's own.
constexpr uint64_t kLeastBlock = 128u << 10;

constexpr char kLock = '\xf0';
constexpr unsigned kRex = 0x40, kTwoBytes = 0x0f, kRelative = 5;

enum class Owner { kNobody, kProgram, kLibrary };

}  // namespace

bool asks_for_multiple_writers(pid_t pid) {
  return environment_variable(pid, "KRG_MULTIPLE_WRITERS").has_value();
}

bool wants_multiple_writers(pid_t pid) {
  if (!asks_for_multiple_writers(pid)) return false;
  auto program = read_whole_file(fmt::format("/proc/{}/exe", pid));
  if (program && !has_fence(*program)) return true;
  log_warn("spread", "pid {}: its program has memory fences (flush): each page has one writer",
           pid);
  return false;
}

bool has_fence(std::string_view code) {
  constexpr std::array kFences = {"\x0f\xae\xf0"sv, "\xf0\x48\x83\x0c\x24\0"sv,
                                  "\xf0\x83\x0c\x24\0"sv};
  return std::any_of(kFences.begin(), kFences.end(), [&](std::string_view fence) {
    return code.find(fence) != std::string_view::npos;
  });
}

// lock, REX, opcode, ModRM (an address relative to the next instruction), displacement, immediate.
std::vector<RemoteAddr> atomic_words(std::string_view code, RemoteAddr start) {
  std::vector<RemoteAddr> words;
  const auto byte = [&](size_t i) {
    return i < code.size() ? static_cast<unsigned char>(code[i]) : 0u;
  };
  for (size_t at = code.find(kLock); at != std::string_view::npos; at = code.find(kLock, at + 1)) {
    size_t next = at + 1;
    if ((byte(next) & 0xf0) == kRex) ++next;
    unsigned opcode = byte(next++);
    if (opcode == kTwoBytes) opcode = kTwoBytes << 8 | byte(next++);
    const unsigned mode = byte(next++);
    int32_t displacement = 0;
    if ((mode & 0xc7) != kRelative || next + sizeof displacement > code.size()) continue;
    std::memcpy(&displacement, code.data() + next, sizeof displacement);
    next += sizeof displacement;
    if (opcode == 0x80 || opcode == 0x83 || opcode == 0x0fba) next += 1;
    if (opcode == 0x81) next += sizeof(int32_t);
    words.push_back({start.value + next + static_cast<uint64_t>(int64_t{displacement})});
  }
  return words;
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
  for (const SpreadRange& range : parts_.one_writer) {
    one_writer_.unmap(range.start, range.bytes);
    one_writer_.map(range);
  }
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
