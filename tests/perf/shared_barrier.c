// The median time of a pthread barrier of two forks' children in anonymous shared memory, in µs, by
// the one that waits for the other; and the nodes that they ran on.
//   krgrun -N 2 --caps=+DISTANT_FORK shared_barrier [ROUNDS] | cat
// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdio.h>

#include "median.h"
#include "process_pair.h"

static int child(void* memory, int mine, int rounds) {
  struct process_pair* pair = memory;
  double* took = begin_rounds(pair, mine, rounds);
  for (int i = 0; i < rounds; i++) {
    const double before = now_us();
    pthread_barrier_wait(&pair->barrier);
    took[i] = now_us() - before;
  }
  sort_doubles(took, (size_t)rounds);
  if (mine == 0) pair->median_us = took[rounds / 2];
  return 0;
}

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 1000;
  struct process_pair* pair = share_with_pair(sizeof *pair);
  if (rounds <= 0 || !pair) return 1;
  const int failed = run_pair(pair, rounds, child);
  printf("barrier %.1f us (%s, %s)\n", pair->median_us, pair->hosts[0], pair->hosts[1]);
  return failed;
}
