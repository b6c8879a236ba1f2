// For programs that write what they do: what fails ends them.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <stdio.h>
#include <stdlib.h>

static inline void must(int good, const char* what) {
  if (good) return;
  perror(what);
  exit(9);
}
