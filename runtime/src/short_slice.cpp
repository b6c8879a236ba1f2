// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/short_slice.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace krg {

Status take_short_slices(std::chrono::microseconds slice) {
  SchedulingOfThread attributes{};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0)
    return errno_error("sched_getattr");
  if (attributes.policy != SCHED_OTHER && attributes.policy != SCHED_BATCH)
    return errno_error("turns of the scheduler", ENOTSUP);
  attributes.flags |= kResetOnFork;
  attributes.runtime =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(slice).count());
  if (syscall(SYS_sched_setattr, 0, &attributes, 0) != 0) return errno_error("sched_setattr");
  return {};
}

}  // namespace krg
