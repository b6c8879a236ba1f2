// copy_process(): a second process like a frozen one, frozen too: with a copy of its memory
// (copy-on-write), its descriptors (shared as fork shares them), all its threads, timers and what
// else its image has. It has ids of its own, which its memory knows where the kernel was told to
// write them (set_tid_address(2)), and no waiting signals. Its parent is the original's.
//
// Threads: the loop's thread, which is the tracer. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "image/frozen_process.h"

namespace krg {

// Errors: those of capture_image() and of clone(2); there is no copy then. `session_mount_ns`: as
// there.
Result<std::shared_ptr<FrozenProcess>> copy_process(FrozenProcess& original, int session_mount_ns);

}  // namespace krg
