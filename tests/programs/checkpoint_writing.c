// An OpenMP program that goes on writing, and discarding, pages of a large array, so that it is
// saved in the middle of that; in each round one page of kPart, all threads together. Until there
// is a file `end`; then it says whether each page has what the round gave it that had it last.
// checkpoint_writing [PAGES [MICROSECONDS BETWEEN ROUNDS]].
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kPart = 64, kWords = 4096 / sizeof(uint64_t) };
static int pages = 16384;
static uint64_t (*array)[kWords];

static uint64_t value(long round, int page, int word) {
  return ((uint64_t)round << 32 | (uint64_t)page << 10 | (uint64_t)word) * 0x9e3779b97f4a7c15ULL +
         1;
}

// Of the pages of a round each eighth is zeros behind it.
static int is_discarded(long round, int page) {
  return (page / kPart + round / kPart) % 8 == 0;
}

static void write_page(long round, int page) {
  if (is_discarded(round, page))
    madvise(array[page], sizeof array[page], MADV_DONTNEED);
  else
    for (int word = 0; word < kWords; ++word) array[page][word] = value(round, page, word);
}

// The last one that had it, of those before `rounds`; the first kPart rounds have all pages.
static long round_of(long rounds, int page) {
  const long before = rounds - 1 - page % kPart;
  return before - before % kPart + page % kPart;
}

static long wrong_words(long rounds, int page) {
  const long round = round_of(rounds, page);
  long wrong = 0;
  for (int word = 0; word < kWords; ++word)
    wrong += array[page][word] != (is_discarded(round, page) ? 0 : value(round, page, word));
  return wrong;
}

int main(int argc, char** argv) {
  if (argc > 1) pages = atoi(argv[1]);
  const useconds_t between = argc > 2 ? (useconds_t)atoi(argv[2]) : 0;
  array = mmap(NULL, (size_t)pages * sizeof *array, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (array == MAP_FAILED) return 2;
  long rounds = 0, wrong = 0;
  int ends = 0, threads = 0;
#pragma omp parallel
  while (!ends) {
#pragma omp for schedule(static)
    for (int i = 0; i < pages / kPart; ++i) write_page(rounds, i * kPart + (int)(rounds % kPart));
#pragma omp single
    {
      if (rounds >= kPart) usleep(between);
      threads = omp_get_num_threads();
      if (++rounds == kPart) close(open("ready", O_CREAT | O_WRONLY, 0644));
      ends = rounds >= kPart && access("end", F_OK) == 0;
    }
  }
  for (int page = 0; page < pages; ++page) {
    const long found = wrong_words(rounds, page);
    if (found > 0 && wrong == 0)
      printf("page %d after %ld rounds: %ld wrong words\n", page, rounds, found);
    wrong += found;
  }
  if (wrong > 0) return 1;
  printf("%d threads, as it should be\n", threads);
  return 0;
}
