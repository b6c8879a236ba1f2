// The window of a process's address space in which memory that other nodes share is mapped, where
// the program does not choose the place itself: so that the system call filter tells an munmap or
// msync there from all others by its address. Free in every layout of x86-64 Linux: programs and
// their heaps lie below, libraries and stacks above. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

namespace krg {

inline constexpr uint64_t kSharedWindow = 0x6b00'0000'0000;
inline constexpr uint64_t kSharedWindowBytes = uint64_t{1} << 40;

}  // namespace krg
