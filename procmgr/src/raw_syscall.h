// System calls without the C library: they do not touch errno, which a child that shares krgd's
// memory has in common with it, and work in a program without C library. x86-64 Linux.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

namespace krg {

// Returns what the kernel does: -errno on an error.
inline int64_t raw_call(long number, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0,
                        uint64_t e = 0, uint64_t f = 0) {
  register uint64_t r10 asm("r10") = d;
  register uint64_t r8 asm("r8") = e;
  register uint64_t r9 asm("r9") = f;
  int64_t result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}
inline uint64_t raw_address(const void* pointer) {
  return reinterpret_cast<uint64_t>(pointer);
}

}  // namespace krg
