// Steps of processes that compute on two grids in turn, in memory that they share: a barrier ends
// each, then the parent tells what there is before anybody changes it. Whatever interrupts them,
// the parent prints the same. It waits for a file "end" before the last steps.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "must.h"

enum { kWorkers = 4, kSide = 256 };

typedef double grid[kSide][kSide];

struct steps {  // in shared memory
  pthread_barrier_t barrier;
  pthread_mutex_t mutex;  // robust, and it knows its owner
  pthread_cond_t changed;
  int told;
  long sums[2];
};

static void prepare_steps(struct steps* steps) {
  pthread_barrierattr_t barrier;
  pthread_mutexattr_t mutex;
  pthread_condattr_t condition;
  must(pthread_barrierattr_init(&barrier) == 0 && pthread_mutexattr_init(&mutex) == 0 &&
           pthread_condattr_init(&condition) == 0,
       "init");
  pthread_barrierattr_setpshared(&barrier, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_settype(&mutex, PTHREAD_MUTEX_ERRORCHECK);
  pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED);
  must(pthread_barrier_init(&steps->barrier, &barrier, kWorkers + 1) == 0 &&
           pthread_mutex_init(&steps->mutex, &mutex) == 0 &&
           pthread_cond_init(&steps->changed, &condition) == 0,
       "init");
}

static void begin_grid(grid* one) {
  for (int i = 0; i < kSide; ++i) (*one)[0][i] = (*one)[i][0] = i;
}

// A worker's rows of a step.
static void compute(struct steps* steps, grid* from, grid* to, int me, int step) {
  long sum = 0;
  for (int y = 1 + me; y < kSide - 1; y += kWorkers)
    for (int x = 1; x < kSide - 1; ++x) {
      (*to)[y][x] =
          ((*from)[y - 1][x] + (*from)[y + 1][x] + (*from)[y][x - 1] + (*from)[y][x + 1]) / 4;
      sum += (long)((*to)[y][x] * 1e6);
    }
  must(pthread_mutex_lock(&steps->mutex) == 0, "lock");
  steps->sums[step % 2] += sum;
  must(pthread_mutex_unlock(&steps->mutex) == 0, "unlock");
}

// A worker's end of a step.
static void wait_until_told(struct steps* steps, int step) {
  pthread_barrier_wait(&steps->barrier);
  must(pthread_mutex_lock(&steps->mutex) == 0, "lock");
  while (steps->told <= step) pthread_cond_wait(&steps->changed, &steps->mutex);
  must(pthread_mutex_unlock(&steps->mutex) == 0, "unlock");
}

// The parent has told of a step. `waits`: for the file "end".
static void go_on(struct steps* steps, int step, int waits) {
  fflush(stdout);
  const struct timespec pause = {0, 20000000};
  nanosleep(&pause, NULL);
  while (waits && access("end", F_OK) != 0) nanosleep(&pause, NULL);
  must(pthread_mutex_lock(&steps->mutex) == 0, "lock");
  steps->sums[step % 2] = 0;
  steps->told = step + 1;
  pthread_cond_broadcast(&steps->changed);
  must(pthread_mutex_unlock(&steps->mutex) == 0, "unlock");
}

static void start_workers(pid_t workers[kWorkers], void (*work)(int me)) {
  for (int i = 0; i < kWorkers; ++i)
    if ((workers[i] = fork()) == 0) work(i);
  close(open("ready", O_CREAT | O_WRONLY, 0644));
}

static void wait_for_workers(const pid_t workers[kWorkers]) {
  for (int i = 0; i < kWorkers; ++i) {
    int status = 0;
    must(waitpid(workers[i], &status, 0) == workers[i], "waitpid");
    printf("worker %d ends with %d\n", i, WEXITSTATUS(status));
  }
}
