// An OpenMP program that is saved and restarted at any instant, under whatever runtime and on
// however many nodes its threads are: all that it computes are integers, the same in whatever order
// the threads come. It makes the file `ready` once all of them work, and ends as the file `end` is
// there, but not before `rounds` rounds; its last line says nothing of how many those were.
// checkpoint_openmp ROUNDS: what it prints is the same natively.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kNumbers = 1 << 15, kLeast = 4 };
static uint64_t numbers[kNumbers], counted, in_critical, in_single, by_lock, by_tasks;
static int mine;
#pragma omp threadprivate(mine)

static uint64_t mixed(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  return x ^ x >> 29;
}

static void fail(const char* what, int round) {
  printf("round %d: %s\n", round, what);
  exit(1);
}

// Each number goes one step on in each round, whoever does it.
static uint64_t work(int round, omp_lock_t* lock) {
  uint64_t sum = 0;
#pragma omp parallel reduction(+ : sum)
  {
    uint64_t* scratch = malloc(64 << 10);  // an arena's memory, which comes and goes
    memset(scratch, round, 64 << 10);
#pragma omp for schedule(static)
    for (int i = 0; i < kNumbers; ++i) numbers[i] = mixed(numbers[i] + i);
#pragma omp for schedule(dynamic, 64) nowait
    for (int i = 0; i < kNumbers; ++i) sum += numbers[(i * 31) % kNumbers] >> 8;
#pragma omp critical
    ++in_critical;
#pragma omp barrier
#pragma omp single
    ++in_single;
#pragma omp for schedule(guided)
    for (int i = 0; i < 256; ++i) {
      omp_set_lock(lock);
      by_lock += i;
      omp_unset_lock(lock);
#pragma omp atomic
      ++counted;
    }
#pragma omp for ordered schedule(dynamic)
    for (int i = 0; i < 16; ++i) {
#pragma omp ordered
      by_tasks = mixed(by_tasks + i);
    }
    if (((char*)scratch)[4242] != (char)round) fail("memory of its own has changed", round);
    free(scratch);
    ++mine;
  }
  return sum;
}

static uint64_t expected(uint64_t* model, uint64_t* ordered) {
  uint64_t sum = 0;
  for (int i = 0; i < kNumbers; ++i) model[i] = mixed(model[i] + i);
  for (int i = 0; i < kNumbers; ++i) sum += model[(i * 31) % kNumbers] >> 8;
  for (int i = 0; i < 16; ++i) *ordered = mixed(*ordered + i);
  return sum;
}

int main(int argc, char** argv) {
  const int least = argc > 1 ? atoi(argv[1]) : kLeast;
  static uint64_t model[kNumbers];
  uint64_t ordered = 0;
  omp_lock_t lock;
  omp_init_lock(&lock);
  const uint64_t threads = omp_get_max_threads();
  for (int round = 0; round < least || access("end", F_OK) != 0; ++round) {
    if (work(round, &lock) != expected(model, &ordered)) fail("a wrong sum", round);
    const uint64_t rounds = round + 1;
    if (memcmp(numbers, model, sizeof model) != 0) fail("a wrong number", round);
    if (in_critical != rounds * threads) fail("critical", round);
    if (in_single != rounds) fail("single", round);
    if (by_lock != rounds * (255 * 128)) fail("a lock", round);
    if (counted != rounds * 256) fail("atomic", round);
    if (by_tasks != ordered) fail("ordered", round);
    if (round == 1) close(open("ready", O_CREAT | O_WRONLY, 0644));
  }
  int each = 1;
  const int of_main = mine;
#pragma omp parallel reduction(&& : each)
  each = each && mine == of_main;
  if (!each) fail("threadprivate", -1);
  printf("%d threads, as it should be\n", (int)threads);
  return 0;
}
