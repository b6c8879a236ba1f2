// How long a pthread mutex takes from its unlock in one process to its lock in another that waits
// for it: two forks' children hold it in turn in anonymous shared memory, a millisecond each. The
// median in µs, and the nodes that they ran on. The times are CLOCK_MONOTONIC's, which is one for
// all nodes of one machine.
//   krgrun -N 2 --caps=+DISTANT_FORK shared_mutex [ROUNDS] | cat
// SPDX-License-Identifier: GPL-2.0-or-later
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "median.h"

static const double held_us = 1000;
static const useconds_t rest_us = 300;  // the other one, which waits, gets it meanwhile

struct shared {
  pthread_mutex_t mutex;
  pthread_barrier_t start;
  int owner;           // who has had it last
  double unlocked_us;  // when that was about to unlock it
  double median_us;
  char hosts[2][32];
};

static void child(struct shared* shared, int mine, int rounds) {
  double* took = malloc((size_t)rounds * sizeof *took);
  if (!took) _exit(1);
  gethostname(shared->hosts[mine], sizeof shared->hosts[mine] - 1);
  pthread_barrier_wait(&shared->start);
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
  if (mine == 0 && handed_over > 0) shared->median_us = took[handed_over / 2];
  _exit(handed_over < rounds / 2);
}

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 500;
  struct shared* shared =
      mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (rounds <= 0 || shared == MAP_FAILED) return 1;
  shared->owner = -1;
  pthread_mutexattr_t of_mutex;
  pthread_mutexattr_init(&of_mutex);
  pthread_mutexattr_setpshared(&of_mutex, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&shared->mutex, &of_mutex);
  pthread_barrierattr_t of_start;
  pthread_barrierattr_init(&of_start);
  pthread_barrierattr_setpshared(&of_start, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&shared->start, &of_start, 2);
  for (int i = 0; i < 2; i++)
    if (fork() == 0) child(shared, i, rounds);
  int status = 0, failed = 0;
  while (wait(&status) > 0) failed |= status;
  printf("mutex %.1f us (%s, %s)\n", shared->median_us, shared->hosts[0], shared->hosts[1]);
  return failed != 0;
}
