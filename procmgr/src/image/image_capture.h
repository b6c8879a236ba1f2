// capture_image(): the ProcessImage of a frozen process. The process is as before afterwards.
// Threads: the loop's thread, which is the tracer; takes a few milliseconds for a process with many
// mappings or threads. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "image/frozen_process.h"
#include "image/process_image.h"

namespace krg {

// `session_mount_ns`: the mount namespace that it must be in (-1: any). Errors: ENOTSUP with the
// reason why it cannot be taken along; ESRCH.
Result<ProcessImage> capture_image(FrozenProcess& process, int session_mount_ns);

}  // namespace krg
