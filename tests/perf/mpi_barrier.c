// MPI_Barrier, in µs, median and 90th percentile of rank 0: mpi_barrier [ROUNDS]. barrier_ratio.py
// runs it. SPDX-License-Identifier: GPL-2.0-or-later
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "median.h"

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const int rounds = argc > 1 ? atoi(argv[1]) : 2000;
  double* took = calloc((size_t)rounds, sizeof *took);
  if (!took) return 1;
  int self = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &self);
  for (int i = 0; i < 100 + rounds; i++) {
    const double before = now_us();
    MPI_Barrier(MPI_COMM_WORLD);
    if (i >= 100) took[i - 100] = now_us() - before;
  }
  sort_doubles(took, (size_t)rounds);
  if (self == 0) printf("%.2f %.2f\n", took[rounds / 2], took[rounds * 9 / 10]);
  free(took);
  MPI_Finalize();
  return 0;
}
