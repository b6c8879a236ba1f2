// The registers of a stopped thread that is to make a system call for krgd. x86-64 Linux.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/user.h>

#include <array>
#include <cstdint>

namespace krg {

inline constexpr int kSyscallInstructionBytes = 2;  // 0f 05
inline constexpr uint64_t kNoRestart = ~0ULL;       // in orig_rax

// `instruction`: the address of a `syscall`.
inline user_regs_struct call_registers(user_regs_struct registers, uint64_t instruction,
                                       long number, const std::array<uint64_t, 6>& arguments) {
  registers.rip = instruction;
  registers.rax = static_cast<uint64_t>(number);
  registers.orig_rax = kNoRestart;
  registers.rdi = arguments[0];
  registers.rsi = arguments[1];
  registers.rdx = arguments[2];
  registers.r10 = arguments[3];
  registers.r8 = arguments[4];
  registers.r9 = arguments[5];
  return registers;
}

}  // namespace krg
