// capture_image(): the ProcessImage of a frozen process. The process is as before afterwards.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "image/frozen_process.h"
#include "image/process_image.h"

namespace krg {

// What of an image takes time, more the more memory the process has (some 60 ms a GiB: the kernel
// counts pages for /proc/PID/smaps), or may wait for a file system.
struct ImageMemory {
  std::vector<ImageFile> files;  // the first: the program
  std::vector<ImageMapping> mappings;
};
// Any thread. REQUIRES: the process is frozen, and nothing has been put into it (drop_scratch()).
// Errors: as capture_image().
Result<ImageMemory> read_image_memory(pid_t pid);

// The loop's thread, which is the tracer; takes a millisecond, and a tenth more for each thread.
// `session_mount_ns`: the mount namespace that the process must be in (-1: any). Errors: ENOTSUP
// with the reason why it cannot be taken along; ESRCH.
Result<ProcessImage> capture_image(FrozenProcess& process, ImageMemory memory,
                                   int session_mount_ns);
// Both.
Result<ProcessImage> capture_image(FrozenProcess& process, int session_mount_ns);

}  // namespace krg
