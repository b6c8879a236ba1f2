// What a futex(2) that a thread of a spread process makes asks for. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/futex.h>
#include <sys/user.h>

#include <algorithm>
#include <cstdint>

namespace krg {

inline uint64_t futex_operation(const user_regs_struct& call) {
  return call.rsi & static_cast<uint64_t>(FUTEX_CMD_MASK);
}

// How many it wakes. The kernel wakes one where it is to wake none.
inline uint32_t futex_count(uint64_t argument) {
  return static_cast<uint32_t>(std::max(static_cast<int32_t>(argument), 1));
}

}  // namespace krg
