// Processes that compute on a grid in shared memory, with a barrier, mutexes and a condition
// variable for all of them; prints a line for each step, the same whatever interrupts it. Needs a
// file "end" to come to its end. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kWorkers = 4, kSide = 256, kSteps = 60, kLast = 55 };

struct shared {
  pthread_barrier_t barrier;
  pthread_mutex_t mutex;  // robust, and it knows its owner
  pthread_cond_t changed;
  int steps_told;
  long sums[2];
  double grids[2][kSide][kSide];
};

static void must(int good, const char* what) {
  if (good) return;
  perror(what);
  exit(9);
}

static void compute(struct shared* all, int me, int step) {
  double(*from)[kSide] = all->grids[step % 2], (*to)[kSide] = all->grids[(step + 1) % 2];
  long sum = 0;
  for (int y = 1 + me; y < kSide - 1; y += kWorkers)
    for (int x = 1; x < kSide - 1; ++x) {
      to[y][x] = (from[y - 1][x] + from[y + 1][x] + from[y][x - 1] + from[y][x + 1]) / 4;
      sum += (long)(to[y][x] * 1e6);
    }
  must(pthread_mutex_lock(&all->mutex) == 0, "lock");
  all->sums[step % 2] += sum;
  must(pthread_mutex_unlock(&all->mutex) == 0, "unlock");
}

static void work(struct shared* all, int me) {
  for (int step = 0; step < kSteps; ++step) {
    compute(all, me, step);
    pthread_barrier_wait(&all->barrier);
    // The parent tells what there is before it is changed.
    must(pthread_mutex_lock(&all->mutex) == 0, "lock");
    while (all->steps_told <= step) pthread_cond_wait(&all->changed, &all->mutex);
    must(pthread_mutex_unlock(&all->mutex) == 0, "unlock");
  }
  _exit(20 + me);
}

static void prepare(struct shared* all) {
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
  must(pthread_barrier_init(&all->barrier, &barrier, kWorkers + 1) == 0 &&
           pthread_mutex_init(&all->mutex, &mutex) == 0 &&
           pthread_cond_init(&all->changed, &condition) == 0,
       "init");
  for (int grid = 0; grid < 2; ++grid)
    for (int i = 0; i < kSide; ++i) all->grids[grid][0][i] = all->grids[grid][i][0] = i;
}

int main(void) {
  struct shared* all =
      mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  must(all != MAP_FAILED, "mmap");
  prepare(all);
  pid_t workers[kWorkers];
  for (int i = 0; i < kWorkers; ++i)
    if ((workers[i] = fork()) == 0) work(all, i);
  close(open("ready", O_CREAT | O_WRONLY, 0644));
  for (int step = 0; step < kSteps; ++step) {
    pthread_barrier_wait(&all->barrier);
    printf("%d %ld\n", step, all->sums[step % 2]);
    fflush(stdout);
    const struct timespec pause = {0, 20000000};
    nanosleep(&pause, NULL);
    while (step == kLast && access("end", F_OK) != 0) nanosleep(&pause, NULL);
    must(pthread_mutex_lock(&all->mutex) == 0, "lock");
    all->sums[step % 2] = 0;
    all->steps_told = step + 1;
    pthread_cond_broadcast(&all->changed);
    must(pthread_mutex_unlock(&all->mutex) == 0, "unlock");
  }
  for (int i = 0; i < kWorkers; ++i) {
    int status = 0;
    must(waitpid(workers[i], &status, 0) == workers[i], "waitpid");
    printf("worker %d ends with %d\n", i, WEXITSTATUS(status));
  }
  return 0;
}
