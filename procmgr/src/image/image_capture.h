// capture_image(): the ProcessImage of a frozen process. The process is as before afterwards.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "image/frozen_process.h"
#include "image/known_mappings.h"
#include "image/process_image.h"

namespace krg {

// What of an image may take time, or wait for a file system.
struct ImageMemory {
  std::vector<ImageFile> files;  // the first: the program
  std::vector<ImageMapping> mappings;
};
// Any thread. REQUIRES: the process is frozen, and nothing has been put into it (drop_scratch()).
// `before`: its mappings as they were read before, or its parent's; those that are new have all
// read again, 40 ms for each GiB that it has. Errors: as capture_image().
Result<ImageMemory> read_image_memory(pid_t pid, MappingTexts& before);

// The loop's thread, which is the tracer; takes a millisecond, and a tenth more for each thread.
// `session_mount_ns`: the mount namespace that the process must be in (-1: any). Errors: ENOTSUP
// with the reason why it cannot be taken along; ESRCH. What krgd has put into it is there then.
Result<ProcessImage> capture_image(FrozenProcess& process, ImageMemory memory,
                                   int session_mount_ns);
// Both, and drop_scratch().
Result<ProcessImage> capture_image(FrozenProcess& process, int session_mount_ns,
                                   MappingTexts& before);
Result<ProcessImage> capture_image(FrozenProcess& process, int session_mount_ns);

}  // namespace krg
