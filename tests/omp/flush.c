// Members of a team hand a number on by memory and flush alone: prints how many they were.
//   krgrun -N 2 --omp=krg --multiple-writers omp_flush
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <stdio.h>

static volatile int turn;

int main(void) {
#pragma omp parallel
  {
    const int self = omp_get_thread_num();
    while (turn != self) {
#pragma omp flush
    }
    turn = self + 1;
#pragma omp flush
  }
  printf("%d threads\n", turn);
  return 0;
}
