// A barrier of an OpenMP team, in µs, median and 90th percentile: omp_barrier [ROUNDS].
// barrier_ratio.py runs it over nodes. SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "median.h"

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 2000;
  double* took = calloc((size_t)rounds, sizeof *took);
  if (!took) return 1;
#pragma omp parallel
  {
    const int self = omp_get_thread_num();
    for (int i = 0; i < 100 + rounds; i++) {
      const double before = now_us();
#pragma omp barrier
      if (self == 0 && i >= 100) took[i - 100] = now_us() - before;
    }
  }
  sort_doubles(took, (size_t)rounds);
  printf("%.2f %.2f\n", took[rounds / 2], took[rounds * 9 / 10]);
  free(took);
  return 0;
}
