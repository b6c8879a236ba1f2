// Fibonacci numbers by tasks that wait for their children.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

static int fibonacci(int n) {
  if (n < 2) return n;
  int a, b;
#pragma omp task shared(a)
  a = fibonacci(n - 1);
#pragma omp task shared(b)
  b = fibonacci(n - 2);
#pragma omp taskwait
  return a + b;
}
