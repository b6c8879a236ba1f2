// SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "krg/runtime/check.h"

namespace krg {

void check_failed(const char* why, const char* file, int line) noexcept {
  std::fprintf(stderr, "%s:%d: invariant broken: %s (pid %d)\n", file, line, why, getpid());
  std::abort();
}

}  // namespace krg
