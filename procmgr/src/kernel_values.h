// Values of the kernel that no header of the C library has, and that several files need.
// Sources: include/linux/errno.h and kernel/signal.c of the kernel.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <ctime>

namespace krg {

inline constexpr unsigned kLastSignal = 64;

// What rt_sigaction(2) takes and gives on x86-64.
struct KernelSignalAction {
  uint64_t handler = 0, flags = 0, restorer = 0, mask = 0;
};

// What a system call that is to be made again leaves in rax: a tracer sees it, the program never
// does.
inline constexpr int64_t kRestartSystemCall = -512;
inline constexpr int64_t kRestartUnlessHandled = -514;
inline constexpr int64_t kRestartBlock = -516;  // by restart_syscall(2)

inline constexpr int64_t kNsPerSecond = 1'000'000'000;

inline int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

}  // namespace krg
