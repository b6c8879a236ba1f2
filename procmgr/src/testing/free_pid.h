// A pid for a body in a test, where the whole machine's pid space is shared.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cerrno>
#include <csignal>
#include <fstream>
#include <random>

namespace krg::testing {

// Nobody has it now, and it is unlikely to be handed out soon.
inline pid_t free_pid() {
  pid_t max = 32768;
  std::ifstream("/proc/sys/kernel/pid_max") >> max;
  static std::mt19937 random(std::random_device{}());
  std::uniform_int_distribution<pid_t> any(max / 2, max - 1);
  for (;;) {
    const pid_t pid = any(random);
    if (kill(pid, 0) != 0 && errno == ESRCH) return pid;
  }
}

}  // namespace krg::testing
