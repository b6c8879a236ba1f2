// An ordinary MPI program: every rank adds its number, rank 0 prints the sum and how many there
// were. SPDX-License-Identifier: GPL-2.0-or-later
#include <mpi.h>

#include <stdio.h>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, size = 0, sum = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Reduce(&rank, &sum, 1, MPI_INT, MPI_SUM, 0, MPI_COMM_WORLD);
  if (rank == 0) printf("sum %d of %d ranks\n", sum, size);
  MPI_Finalize();
}
