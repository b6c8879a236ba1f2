// Whether a second thread would get a processor at once. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

#include "krg/procmgr/placement.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// Where all have work a helper would take the processor from the caller.
inline bool has_idle_processor() {
  UniqueFd file(open("/proc/loadavg", O_RDONLY | O_CLOEXEC));
  char text[64] = {};
  unsigned running = 0;  // this thread is one of them
  return file && read(file.get(), text, sizeof text - 1) > 0 &&
         sscanf(text, "%*f %*f %*f %u/", &running) == 1 && running < usable_cores();
}

}  // namespace krg
