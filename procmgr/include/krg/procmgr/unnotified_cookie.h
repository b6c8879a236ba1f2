// The value in the unused sixth argument that makes a system call pass the filter
// (syscall_filter.h). A program that had it there by chance would merely get its node's own answer.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

namespace krg {

inline constexpr uint64_t kUnnotifiedCookie = 0x6b72'6745'7865'6321;

}  // namespace krg
