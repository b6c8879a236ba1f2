// Two forks' children that are measured in anonymous shared memory, each on a node of its own where
// krgrun places them so. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

// What each measured program's own shared memory begins with.
struct process_pair {
  pthread_barrier_t barrier;  // of both
  double median_us;
  char hosts[2][32];
};

// Shared memory of `size` bytes, zeros but for the barrier; null: there is none.
static inline void* share_with_pair(size_t size) {
  struct process_pair* pair =
      mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (pair == MAP_FAILED) return NULL;
  pthread_barrierattr_t attributes;
  pthread_barrierattr_init(&attributes);
  pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&pair->barrier, &attributes, 2);
  return pair;
}

// Room for a measured time of each round. Both come out of it together.
static inline double* begin_rounds(struct process_pair* pair, int mine, int rounds) {
  double* took = malloc((size_t)rounds * sizeof *took);
  if (!took) _exit(1);
  gethostname(pair->hosts[mine], sizeof pair->hosts[mine] - 1);
  pthread_barrier_wait(&pair->barrier);
  return took;
}

// Both children's; 0: each has returned 0.
static inline int run_pair(void* shared, int rounds, int (*child)(void*, int mine, int rounds)) {
  for (int i = 0; i < 2; i++)
    if (fork() == 0) _exit(child(shared, i, rounds));
  int status = 0, failed = 0;
  while (wait(&status) > 0) failed |= status;
  return failed != 0;
}
