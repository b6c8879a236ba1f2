// Teams of many more threads than processors, larger and smaller ones in turn, and tasks for all of
// a large team's members. Arguments: how many threads; `team`: one region of so many,
// no more; MiB of memory that are written before.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdlib.h>

#include "expect.h"

static int members(int threads) {
  int count = 0;
#pragma omp parallel num_threads(threads) reduction(+ : count)
  count += 1;
  return count;
}

static int tasks(int threads) {
  int last = -1;
#pragma omp parallel num_threads(threads)
#pragma omp single
#pragma omp taskloop lastprivate(last) num_tasks(threads)
  for (int i = 0; i < threads; ++i) last = i;
  return last;
}

int main(int count, char** arguments) {
  const int threads = count > 1 ? atoi(arguments[1]) : 64;
  const size_t bytes = count > 3 ? (size_t)atoi(arguments[3]) << 20 : 0;
  volatile char* memory = malloc(bytes);
  for (size_t i = 0; i < bytes; i += 4096) memory[i] = 1;
  expect(members(threads) == threads, "a large team");
  if (count > 2) return result();
  expect(members(3) == 3, "a small one");
  expect(tasks(threads) == threads - 1, "tasks of a large one");
  expect(members(threads / 2) == threads / 2, "half of it");
  expect(members(threads) == threads, "the large one again");
  printf("%d threads\n", threads);
  return result();
}
