// Calls that change the address space are the first ones that the team's first thread makes behind
// barriers and regions: what is made, moved, protected and dropped is what all members see. Prints
// how many rounds were right.
//   krgrun -N 2 --omp=krg omp_allocations
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kRounds = 12, kWords = 1 << 15, kBytes = kWords * sizeof(long) };

static long expected_at(int round, long i) {
  return (long)round * 1000003 + i;
}

// All members write their parts, then all read all of it.
static int fill_and_check(long* memory, int round) {
  long wrong = 0;
#pragma omp parallel reduction(+ : wrong)
  {
#pragma omp for
    for (long i = 0; i < kWords; ++i) memory[i] = expected_at(round, i);
    for (long i = 0; i < kWords; i += 64) wrong += memory[i] != expected_at(round, i);
  }
  return wrong == 0;
}

int main(void) {
  int right = 0;
#pragma omp parallel
  {
#pragma omp barrier
  }
  for (int round = 0; round < kRounds; ++round) {
    long* heap = sbrk(kBytes);
    int is_right = fill_and_check(heap, round);
    long* mapped = mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    is_right &= fill_and_check(mapped, round + 100);
    mapped = mremap(mapped, kBytes, 2 * kBytes, MREMAP_MAYMOVE);
    is_right &= fill_and_check(mapped, round + 200);
    mprotect(mapped, kBytes, PROT_READ);
#pragma omp parallel
    {
      long sum = 0;
      for (long i = 0; i < kWords; i += 512) sum += mapped[i] - expected_at(round + 200, i);
#pragma omp critical
      is_right &= sum == 0;
    }
    munmap(mapped, 2 * kBytes);
    is_right &= fill_and_check(heap, round + 300);
    if (round % 2) sbrk(-(long)kBytes);
#pragma omp parallel
    {
#pragma omp barrier
#pragma omp master
      usleep(100);
#pragma omp barrier
    }
    right += is_right;
  }
  printf("%d of %d rounds\n", right, kRounds);
  return right != kRounds;
}
