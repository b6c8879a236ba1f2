// Kernel interface of seccomp that the C library's headers (kernel 6.1) do not have yet.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/ioctl.h>
#include <linux/seccomp.h>

#include <cstdint>

namespace krg {

// SECCOMP_IOCTL_NOTIF_SET_FLAGS and its flag SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (kernel 6.6).
inline constexpr unsigned long kNotifSetFlags = _IOW(SECCOMP_IOC_MAGIC, 4, uint64_t);
inline constexpr unsigned long kNotifSyncWakeUp = 1;

}  // namespace krg
