// WaitTimes: for how long the threads of a process have been waiting in calls with a relative time
// limit, so that on another node they wait for the rest only. The kernel tells nobody when a wait
// began; but it tells when a thread last ran (/proc/PID/sched, proc(5)). To be read before the
// process stands still: that ends the waits. Threads: any; a value.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <vector>

#include "image/frozen_process.h"
#include "image/process_image.h"

namespace krg {

class WaitTimes {
 public:
  // Nothing of a process with very many threads, nor where the kernel does not tell.
  static WaitTimes of(pid_t pid);
  // Shortens the waits that the threads of the image are still in. Never by too much: who waits for
  // the rest ends no earlier than it would have. False: of a thread that was about to go on with a
  // wait it was not seen which; it ends with EINTR if it moves now.
  bool shorten(const FrozenProcess& process, ProcessImage& image) const;

 private:
  struct Wait {
    pid_t tid = 0;
    uint64_t number = 0;  // of the call that is waited in
    std::array<uint64_t, 4> arguments{};
    int64_t began_ns = 0;  // CLOCK_MONOTONIC
  };
  std::vector<Wait> waits_;
};

}  // namespace krg
