// Kernel interface of futexes that the C library's headers (kernel 6.1) do not have yet: calls of
// Linux 6.7. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/syscall.h>

#include <cstdint>

namespace krg {

inline constexpr int kFutexWaitv = SYS_futex_waitv;  // Linux 5.16
inline constexpr int kFutexWait = 455, kFutexRequeue = 456;
inline constexpr uint32_t kFutexPrivate = 128;  // of futex_wait's fourth argument

}  // namespace krg
