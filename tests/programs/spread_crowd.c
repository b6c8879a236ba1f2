// Several threads of a node meet the same new memory at once, and all of them write the same
// pages, and get and give back memory at once. Nothing may read as anything but what was written
// last.
//   spread_crowd THREADS ROUNDS
// SPDX-License-Identifier: GPL-2.0-or-later
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  kPage = 4096,
  kWords = kPage / sizeof(long),
  kMost = 64,
  kPages = 3,
  kMappings = 12,
  kSwept = 256,    // pages
  kStep = 16,      // words
  kTogether = 272  // steps
};

static pthread_barrier_t barrier;
static long threads, rounds;
static long* memory[kMappings];
static long* swept;
static atomic_long wrong;

static void meet(void) {
  pthread_barrier_wait(&barrier);
}

static void expect(const char* what, long round, long self, long found, long expected) {
  if (found == expected) return;
  if (atomic_fetch_add(&wrong, 1) < 5)
    fprintf(stderr, "%s: round %ld, thread %ld: %lx, not %lx\n", what, round, self, found,
            expected);
}

static long* map(size_t pages) {
  long* at = mmap(NULL, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) abort();
  return at;
}

static long value(long round, long number) {
  return round << 32 | number << 1 | 1;
}

// One writes a page for each in every mapping; all look at theirs and write them, mapping after
// mapping, so that those of one node come to each of them together. The next one looks at all.
static void meet_new_memory(long self) {
  for (long round = 0; round < rounds; ++round) {
    for (int m = 0; self == round % threads && m < kMappings; ++m) {
      memory[m] = map((size_t)threads);
      for (long i = 0; i < threads; ++i) memory[m][i * kWords] = value(round, i);
    }
    meet();
    for (int m = 0; m < kMappings; ++m) {
      long* mine = memory[m] + self * kWords;
      expect("new", round, self, mine[0], value(round, self));
      mine[1] = -value(round, self);
    }
    meet();
    for (int m = 0; self == (round + 1) % threads && m < kMappings; ++m) {
      for (long i = 0; i < threads; ++i) {
        expect("of others", round, i, memory[m][i * kWords + 1], -value(round, i));
        expect("kept", round, i, memory[m][i * kWords], value(round, i));
      }
      munmap(memory[m], (size_t)threads * kPage);
    }
    meet();
  }
}

// Each has memory of its own, often where another one's has just been.
static void change_memory(long self) {
  for (long round = 0; round < 4 * rounds; ++round) {
    const size_t pages = 1 + (size_t)(round + self) % kPages;
    long* mine = map(pages);
    for (size_t i = 0; i < pages; ++i) {
      expect("fresh", round, self, mine[i * kWords], 0);
      mine[i * kWords] = value(round, self);
    }
    if (round % 4 == 3) {
      if (mprotect(mine, pages * kPage, PROT_READ) != 0) abort();
      if (mprotect(mine, pages * kPage, PROT_READ | PROT_WRITE) != 0) abort();
    }
    for (size_t i = 0; i < pages; ++i)
      expect("own", round, self, mine[i * kWords], value(round, self));
    munmap(mine, pages * kPage);
  }
}

// All go through the same pages one after the other, and each time write what another one has
// written the time before: runs of pages that several nodes fetch ahead to write them.
static void sweep(long self) {
  if (self == 0) swept = map(kSwept);
  meet();
  for (long round = 0; round < rounds; ++round) {
    for (long i = 0; i < kSwept * kWords / kStep; ++i) {
      long* word = swept + i * kStep;
      if ((i / kTogether + round) % threads != self) continue;
      expect("swept", round, self, *word, round == 0 ? 0 : value(round, i));
      *word = value(round + 1, i);
    }
    meet();
  }
}

static void* run(void* argument) {
  const long self = (long)argument;
  meet_new_memory(self);
  sweep(self);
  change_memory(self);
  return NULL;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  threads = strtol(argv[1], NULL, 10);
  rounds = strtol(argv[2], NULL, 10);
  if (threads < 1 || threads > kMost) return 2;
  pthread_barrier_init(&barrier, NULL, (unsigned)threads);
  pthread_t others[kMost];
  for (long i = 1; i < threads; ++i)
    if (pthread_create(&others[i], NULL, run, (void*)i) != 0) return 1;
  run(NULL);
  for (long i = 1; i < threads; ++i) pthread_join(others[i], NULL);
  printf("%ld wrong\n", atomic_load(&wrong));
  return wrong != 0;
}
