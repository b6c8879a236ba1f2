// The value in the unused sixth argument that makes a system call pass the filter
// (syscall_filter.h). A program that had it there by chance would merely get its node's own answer.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

namespace krg {

inline constexpr uint64_t kUnnotifiedCookie = 0x6b72'6745'7865'6321;
// For mmap: beside its flags. (mmap(2), kernel 6.18: flags above bit 31 mean nothing to it.)
inline constexpr uint64_t kUnnotifiedMapFlags = kUnnotifiedCookie >> 32 << 32;

}  // namespace krg
