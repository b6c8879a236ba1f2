// How long a pthread mutex takes from its unlock in one process to its lock in another that waits
// for it: two forks' children hold it in turn in anonymous shared memory, a millisecond each. The
// median in µs, and the nodes that they ran on. The times are CLOCK_MONOTONIC's, which is one for
// all nodes of one machine.
//   krgrun -N 2 --caps=+DISTANT_FORK shared_mutex [ROUNDS] | cat
// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdio.h>

#include "median.h"
#include "process_pair.h"

static const double held_us = 1000;
static const useconds_t rest_us = 300;  // the other one, which waits, gets it meanwhile

struct shared {
  struct process_pair pair;
  pthread_mutex_t mutex;
  int owner;           // who has had it last
  double unlocked_us;  // when that was about to unlock it
};

static int child(void* memory, int mine, int rounds) {
  struct shared* shared = memory;
  double* took = begin_rounds(&shared->pair, mine, rounds);
  int handed_over = 0;
  for (int i = 0; i < rounds; i++) {
    pthread_mutex_lock(&shared->mutex);
    const double locked = now_us();
    if (shared->owner == 1 - mine) took[handed_over++] = locked - shared->unlocked_us;
    shared->owner = mine;
    while (now_us() - locked < held_us) usleep(100);
    shared->unlocked_us = now_us();
    pthread_mutex_unlock(&shared->mutex);
    usleep(rest_us);
  }
  sort_doubles(took, (size_t)handed_over);
  if (mine == 0 && handed_over > 0) shared->pair.median_us = took[handed_over / 2];
  return handed_over < rounds / 2;
}

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 500;
  struct shared* shared = share_with_pair(sizeof *shared);
  if (rounds <= 0 || !shared) return 1;
  shared->owner = -1;
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&shared->mutex, &attributes);
  const int failed = run_pair(shared, rounds, child);
  const struct process_pair* pair = &shared->pair;
  printf("mutex %.1f us (%s, %s)\n", pair->median_us, pair->hosts[0], pair->hosts[1]);
  return failed;
}
