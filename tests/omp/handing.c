// Threads that hand a page round: each writes its own word of it in each step. Runs the command
// that it is given, goes on until there is a file `stop`, and says whether each word was written in
// each step. SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { kMostThreads = 64 };
static volatile long words[kMostThreads] __attribute__((aligned(4096)));

int main(int argc, char** argv) {
  if (argc != 2 || system(argv[1]) != 0) return 2;
  long steps = 0;
  int stopped = 0, threads = 0;
#pragma omp parallel
  while (!stopped) {
    ++words[omp_get_thread_num()];
#pragma omp barrier
#pragma omp master
    {
      threads = omp_get_num_threads();
      ++steps;
      stopped = access("stop", F_OK) == 0;
    }
#pragma omp barrier
  }
  for (int i = 0; i < threads; ++i)
    if (words[i] != steps) {
      printf("thread %d: %ld of %ld\n", i, words[i], steps);
      return 1;
    }
  printf("%d threads\n", threads);
  return 0;
}
