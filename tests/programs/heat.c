// Processes that compute on a grid in shared memory, with a barrier, mutexes and a condition
// variable for all of them; prints a line for each step, the same whatever interrupts it. Needs a
// file "end" to come to its end. SPDX-License-Identifier: GPL-2.0-or-later
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "grid_steps.h"

enum { kSteps = 60, kLast = 55 };

static struct shared {
  struct steps steps;
  grid grids[2];
} * all;

static void work(int me) {
  for (int step = 0; step < kSteps; ++step) {
    compute(&all->steps, &all->grids[step % 2], &all->grids[(step + 1) % 2], me, step);
    wait_until_told(&all->steps, step);
  }
  _exit(20 + me);
}

int main(void) {
  all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  must(all != MAP_FAILED, "mmap");
  prepare_steps(&all->steps);
  for (int one = 0; one < 2; ++one) begin_grid(&all->grids[one]);
  pid_t workers[kWorkers];
  start_workers(workers, work);
  for (int step = 0; step < kSteps; ++step) {
    pthread_barrier_wait(&all->steps.barrier);
    printf("%d %ld\n", step, all->steps.sums[step % 2]);
    go_on(&all->steps, step, step == kLast);
  }
  wait_for_workers(workers);
  return 0;
}
