// The median time of a pthread barrier of two forks' children in anonymous shared memory, in µs, by
// the one that waits for the other; and the nodes that they ran on.
//   krgrun -N 2 --caps=+DISTANT_FORK shared_barrier [ROUNDS] | cat
// SPDX-License-Identifier: GPL-2.0-or-later
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "median.h"

struct shared {
  pthread_barrier_t barrier;
  double median_us;
  char hosts[2][32];
};

static void child(struct shared* shared, int mine, int rounds) {
  double* took = malloc((size_t)rounds * sizeof *took);
  if (!took) _exit(1);
  gethostname(shared->hosts[mine], sizeof shared->hosts[mine] - 1);
  pthread_barrier_wait(&shared->barrier);
  for (int i = 0; i < rounds; i++) {
    const double before = now_us();
    pthread_barrier_wait(&shared->barrier);
    took[i] = now_us() - before;
  }
  sort_doubles(took, (size_t)rounds);
  if (mine == 0) shared->median_us = took[rounds / 2];
  _exit(0);
}

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 1000;
  struct shared* shared =
      mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (rounds <= 0 || shared == MAP_FAILED) return 1;
  pthread_barrierattr_t attributes;
  pthread_barrierattr_init(&attributes);
  pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&shared->barrier, &attributes, 2);
  for (int i = 0; i < 2; i++)
    if (fork() == 0) child(shared, i, rounds);
  int status = 0, failed = 0;
  while (wait(&status) > 0) failed |= status;
  printf("barrier %.1f us (%s, %s)\n", shared->median_us, shared->hosts[0], shared->hosts[1]);
  return failed != 0;
}
