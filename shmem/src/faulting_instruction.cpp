// SPDX-License-Identifier: GPL-2.0-or-later
#include "faulting_instruction.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

constexpr size_t kMostInstructionBytes = 15;
constexpr unsigned kMostLooks = 8;

bool is_legacy_prefix(unsigned byte) {
  constexpr std::array kPrefixes = {0x66u, 0x67u, 0x2eu, 0x36u, 0x3eu,
                                    0x26u, 0x64u, 0x65u, 0xf2u, 0xf3u};
  for (unsigned prefix : kPrefixes)
    if (byte == prefix) return true;
  return false;
}

constexpr std::string_view kRuns = "running";

// As proc(5) says of /proc/PID/syscall. A fault is told a moment before its thread stands still.
std::string where_it_waits(pid_t thread) {
  const UniqueFd file(open(fmt::format("/proc/{}/syscall", thread).c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 256> text{};
  for (unsigned look = 0; file && look < kMostLooks; ++look) {
    const ssize_t got = pread(file.get(), text.data(), text.size(), 0);
    if (got <= 0) break;
    std::string found(text.data(), static_cast<size_t>(got));
    if (!found.starts_with(kRuns) || look + 1 == kMostLooks) return found;
    sched_yield();
  }
  return {};
}

}  // namespace

bool is_atomic(std::span<const std::byte> instruction) {
  size_t at = 0;
  while (at < instruction.size() && is_legacy_prefix(std::to_integer<unsigned>(instruction[at])))
    ++at;
  if (at >= instruction.size()) return true;
  unsigned byte = std::to_integer<unsigned>(instruction[at]);
  if (byte == 0xf0) return true;  // lock
  const bool has_rex = byte >= 0x40 && byte <= 0x4f;
  if (has_rex && at + 1 < instruction.size()) byte = std::to_integer<unsigned>(instruction[at + 1]);
  return byte == 0x86 || byte == 0x87;  // xchg
}

// It waits, but not in a system call: -1, the stack pointer, the program counter (proc(5)). In a
// system call it is the kernel that touches the page, which writes plainly.
StandsAt stands_at(pid_t thread, const std::function<bool(RemoteAddr)>& may_fault) {
  const std::string text = where_it_waits(thread);
  if (text.starts_with(kRuns)) return StandsAt::kNothing;
  if (!text.empty() && text[0] >= '0' && text[0] <= '9') return StandsAt::kOther;
  unsigned long long stack = 0, counter = 0;
  if (std::sscanf(text.c_str(), "-1 0x%llx 0x%llx", &stack, &counter) != 2)
    return StandsAt::kAtomic;
  if (may_fault(RemoteAddr{counter})) return StandsAt::kAtomic;
  std::array<std::byte, kMostInstructionBytes> bytes{};
  const iovec local{bytes.data(), bytes.size()};
  const iovec remote{reinterpret_cast<void*>(counter), bytes.size()};
  const ssize_t read_bytes = process_vm_readv(thread, &local, 1, &remote, 1, 0);
  if (read_bytes <= 0) return StandsAt::kAtomic;
  const bool found = is_atomic(std::span(bytes).first(static_cast<size_t>(read_bytes)));
  return found ? StandsAt::kAtomic : StandsAt::kOther;
}

}  // namespace krg
