// The queens problem by explicit tasks: a task for each place of a queen in the first `cut` rows,
// then serially. spread_ratio.py runs it on one node and on several.
// usage: omp_queens [SIZE [CUT]]
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned all;

static long place(unsigned columns, unsigned left, unsigned right) {
  if (columns == all) return 1;
  long found = 0;
  for (unsigned free = all & ~(columns | left | right); free != 0; free &= free - 1) {
    const unsigned here = free & -free;
    found += place(columns | here, (left | here) << 1, (right | here) >> 1);
  }
  return found;
}

static long place_by_tasks(int rows, unsigned columns, unsigned left, unsigned right) {
  if (rows == 0) return place(columns, left, right);
  long found = 0;
#pragma omp taskgroup task_reduction(+ : found)
  for (unsigned free = all & ~(columns | left | right); free != 0; free &= free - 1) {
    const unsigned here = free & -free;
#pragma omp task in_reduction(+ : found)
    found += place_by_tasks(rows - 1, columns | here, (left | here) << 1, (right | here) >> 1);
  }
  return found;
}

int main(int count, char** arguments) {
  const int size = count > 1 ? atoi(arguments[1]) : 14;
  const int cut = count > 2 ? atoi(arguments[2]) : 2;
  all = (1U << size) - 1;
  long found = 0;
  int members = 1;
#pragma omp parallel  // the threads are there, and spread
#pragma omp single
  members = omp_get_num_threads();
  const double began = omp_get_wtime();
#pragma omp parallel
#pragma omp single
  found = place_by_tasks(cut, 0, 0, 0);
  printf("%d queens: %ld, %d threads, time in seconds = %.3f\n", size, found, members,
         omp_get_wtime() - began);
  return 0;
}
