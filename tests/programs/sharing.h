// What the programs that share memory have in common: they fail loudly, and wait for each other by
// looking. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kPatience = 30000, kMillisecond = 1000 };

static void fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static void wait_for(atomic_long* counter, long wanted) {
  for (int i = 0; atomic_load(counter) < wanted; ++i) {
    if (i == kPatience) fail("the others do not come");
    usleep(kMillisecond);
  }
}
