// Threads that have a word go round: each looks at it until its turn has come, so that one after
// the other gets on. usage: omp_looking COMMAND MICROSECONDS: runs the command, waits for a file
// `home`, then goes on until turns of a whole second have taken less than that each; says how many
// threads, each of which has had as many turns, and how long those took.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { kMostThreads = 64, kRounds = 20 };
static volatile long turn __attribute__((aligned(4096)));
static long turns[kMostThreads];

// Of the turns since it was last asked, in microseconds; 0: too short a time to tell, or not yet.
static double microseconds_a_turn(int threads) {
  static long turns_before;
  static double began;
  const double now = omp_get_wtime();
  if (began == 0 && access("home", F_OK) != 0) return 0;
  if (began != 0 && now - began < 1) return 0;
  const double each = began == 0 ? 0 : (now - began) * 1e6 / (double)(turn - turns_before);
  turns_before = turn;
  began = now;
  return threads > 1 ? each : 1;
}

int main(int argc, char** argv) {
  if (argc != 3 || system(argv[1]) != 0) return 2;
  const double limit = atof(argv[2]);
  int stopped = 0, threads = 0;
  double each = 0;
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
        each = microseconds_a_turn(all);
        stopped = each > 0 && each < limit;
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
  printf("%d threads, %.1f us\n", threads, each);
  return 0;
}
