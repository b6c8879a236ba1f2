// What the OpenMP test programs share: a check that says where it failed and makes the program end
// with 1.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <stdio.h>
#include <stdlib.h>

static int failures;

static inline void expect_at(int good, const char* what, const char* file, int line) {
  if (good) return;
  fprintf(stderr, "%s:%d: %s\n", file, line, what);
  __atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
}

static inline void expect(int good, const char* what) {
  expect_at(good, what, "expected", 0);
}

static inline int result(void) {
  return failures == 0 ? 0 : 1;
}
