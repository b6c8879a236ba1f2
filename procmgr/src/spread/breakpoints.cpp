// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/breakpoints.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

constexpr char kInt3 = '\xcc';

// Writes text, too, as a tracer may; the process gets a page of its own for it.
Result<char> exchange_byte(pid_t pid, RemoteAddr at, char byte) {
  UniqueFd memory(open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDWR | O_CLOEXEC));
  if (memory.get() < 0) return errno_error("/proc/PID/mem");
  const auto offset = static_cast<off_t>(at.value);
  char before = 0;
  if (pread(memory.get(), &before, 1, offset) != 1 || pwrite(memory.get(), &byte, 1, offset) != 1)
    return errno_error("no memory of the process's", EIO);
  return before;
}

}  // namespace

Status Breakpoints::set(pid_t pid, RemoteAddr at) {
  if (replaced_.contains(at)) return {};
  auto& replaced = replaced_[at];
  auto before = exchange_byte(pid, at, kInt3);
  if (!before) return before.error();
  replaced = *before;
  return {};
}

void Breakpoints::clear(pid_t pid, RemoteAddr at) {
  auto known = replaced_.extract(at);
  if (!known.empty() && known.mapped()) static_cast<void>(exchange_byte(pid, at, *known.mapped()));
}

void Breakpoints::set_again(pid_t pid, RemoteAddr start, uint64_t bytes) {
  const auto end = replaced_.lower_bound(start + bytes);
  for (auto entry = replaced_.lower_bound(start); entry != end; ++entry) {
    auto before = exchange_byte(pid, entry->first, kInt3);
    if (before) entry->second = *before;
  }
}

void Breakpoints::take_from(pid_t pid) const {
  for (const auto& [at, before] : replaced_)
    if (before) static_cast<void>(exchange_byte(pid, at, *before));
}

Breakpoints::Trap Breakpoints::meet(TracedThread& thread) const {
  auto info = thread.signal_info();
  auto registers = thread.registers();
  if (!info || !registers) return Trap::kProgramsOwn;  // its end is told
  if (TracedThread::is_of_step(*info)) return Trap::kStep;
  const RemoteAddr at{registers->rip - sizeof kInt3};
  if (info->si_code != SI_KERNEL || !replaced_.contains(at)) return Trap::kProgramsOwn;
  registers->rip = at.value;
  return thread.set_registers(*registers) ? Trap::kBreakpoint : Trap::kProgramsOwn;
}

}  // namespace krg
