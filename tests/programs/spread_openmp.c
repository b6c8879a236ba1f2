// An OpenMP program, under whatever runtime library it finds.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdio.h>

enum { kNumbers = 1 << 16 };
static double numbers[kNumbers];

int main(void) {
  double sum = 0;
  int threads = 0;
#pragma omp parallel for
  for (int i = 0; i < kNumbers; ++i) numbers[i] = i * 0.5;
#pragma omp parallel for reduction(+ : sum) schedule(dynamic, 4096)
  for (int i = 0; i < kNumbers; ++i) sum += numbers[i];
#pragma omp parallel
  {
#pragma omp critical
    ++threads;
#pragma omp barrier
#pragma omp single
    printf("threads %d\n", threads);
  }
  printf("%.1f\n", sum);
  return 0;
}
