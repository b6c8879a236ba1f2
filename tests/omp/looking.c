// Threads that have a word go round: each looks at it until its turn has come, so that one after
// the other gets on. Runs the command that it is given, goes on until there is a file `stop`, and
// says whether all have had as many turns. SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { kMostThreads = 64, kRounds = 20 };
static volatile long turn __attribute__((aligned(4096)));
static long turns[kMostThreads];

int main(int argc, char** argv) {
  if (argc != 2 || system(argv[1]) != 0) return 2;
  int stopped = 0, threads = 0;
#pragma omp parallel
  {
    const int self = omp_get_thread_num(), all = omp_get_num_threads();
    long mine = 0;
    while (!stopped) {
      for (int i = 0; i < kRounds; ++i, ++mine) {
        while (turn != mine * all + self) {
        }
        turn = turn + 1;
      }
#pragma omp barrier
#pragma omp master
      {
        threads = all;
        stopped = access("stop", F_OK) == 0;
      }
#pragma omp barrier
    }
    turns[self] = mine;
  }
  for (int i = 1; i < threads; ++i)
    if (turns[i] != turns[0]) {
      printf("thread %d: %ld of %ld\n", i, turns[i], turns[0]);
      return 1;
    }
  printf("%d threads\n", threads);
  return 0;
}
