// One of several processes that run a litmus test of memory order on memory they share by name:
//   litmus NAME TEST PROCESSES INDEX ITERATIONS
// TEST: sb (store buffering, with the fence that x86 needs), mp (message passing), lb (load
// buffering): pairs of processes, of which the second half are the other sides; iriw (independent
// reads of independent writes), coherence: 4; atomics: any number. An iteration has words of its
// own; sixteen iterations in a row share their pages, so that pages change hands in the middle of
// them. Iterations are run in batches, between which all wait for each other; the first process
// then looks for outcomes that sequential consistency forbids. Each prints its host; the first one
// how often which outcome came. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "sharing.h"

enum {
  kPage = 4096,
  kAreaPages = 64,
  kTogether = 16,                    // iterations in a row on the same pages
  kBatch = 4096,                     // iterations
  kPairWords = kBatch / kAreaPages,  // of each page, for each pair
  kMost = 8,                         // processes
  kOutcomes = 256,  // two results of 0 to 2 for each of up to four processes, packed
};

typedef _Atomic uint64_t word;

struct memory {
  word x[kAreaPages * kPage / sizeof(word)];
  word y[kAreaPages * kPage / sizeof(word)];
  atomic_long arrived[kPage / sizeof(atomic_long)];  // by process: batches that it has ended
  uint8_t results[2][kMost][kBatch];                 // by the batch's parity and process
};

// Where iteration `i` of a batch has its word in an area.
static int place(int i) {
  const int page = i / kTogether % kAreaPages;
  const int in_page = i / (kTogether * kAreaPages) * kTogether + i % kTogether;
  return page * (int)(kPage / sizeof(word)) + in_page;
}

static void wait_for_all(struct memory* m, int processes, int index, long batch) {
  atomic_store(&m->arrived[index], batch);
  for (int p = 0; p < processes; ++p) wait_for(&m->arrived[p], batch);
}

// Words count up from batch to batch instead of being cleared: what is below `base` is as if 0.
static unsigned seen(word* at, uint64_t base) {
  const uint64_t value = atomic_load(at);
  return value <= base ? 0 : (unsigned)(value - base);
}

// One process's part of one iteration; the two results are 0, 1 or 2.
static unsigned run_one(const char* test, int index, word* x, word* y, uint64_t base) {
  unsigned first = 0, second = 0;
  if (strcmp(test, "sb") == 0) {
    atomic_store(index == 0 ? x : y, base + 1);
    first = seen(index == 0 ? y : x, base);
  } else if (strcmp(test, "mp") == 0) {
    if (index == 0) {
      atomic_store_explicit(x, base + 1, memory_order_release);
      atomic_store_explicit(y, base + 1, memory_order_release);
    } else {
      first = seen(y, base);
      second = seen(x, base);
    }
  } else if (strcmp(test, "lb") == 0) {
    first = seen(index == 0 ? x : y, base);
    atomic_store_explicit(index == 0 ? y : x, base + 1, memory_order_release);
  } else if (strcmp(test, "iriw") == 0) {
    if (index < 2) {
      atomic_store_explicit(index == 0 ? x : y, base + 1, memory_order_release);
    } else {
      first = seen(index == 2 ? x : y, base);
      second = seen(index == 2 ? y : x, base);
    }
  } else if (strcmp(test, "coherence") == 0) {
    if (index < 2) {
      atomic_store_explicit(x, base + 1 + (unsigned)index, memory_order_release);
    } else {
      first = seen(x, base);
      second = seen(x, base);
    }
  }
  return first | second << 2;
}

static int forbidden(const char* test, const unsigned* r) {
  if (strcmp(test, "sb") == 0) return r[0] == 0 && r[1] == 0;
  if (strcmp(test, "mp") == 0) return r[1] == 1;  // y was there, x was not
  if (strcmp(test, "lb") == 0) return r[0] == 1 && r[1] == 1;
  if (strcmp(test, "iriw") == 0) return r[2] == 1 && r[3] == 1;  // each saw the other's first
  const unsigned a = r[2] & 3, b = r[2] >> 2, c = r[3] & 3, d = r[3] >> 2;
  return (a && !b) || (c && !d) || (a && c && a != b && c != d && a == d && b == c);
}

// How many of the processes play each other's part apart from the others.
static int pairs_of(const char* test, int processes) {
  return strlen(test) == 2 ? processes / 2 : 1;
}

// Adds a group's outcomes of this batch; ends the program at a forbidden one.
static void check_group(const char* test, struct memory* m, int processes, int pairs, int pair,
                        long batch, int count, long* outcomes) {
  for (int i = 0; i < count; ++i) {
    unsigned results[kMost], packed = 0;
    for (int p = 0; p < processes; ++p) {
      results[p] = m->results[batch & 1][p * pairs + pair][i];
      packed = packed * 4 + (results[p] & 3);
    }
    ++outcomes[packed % kOutcomes];
    if (!forbidden(test, results)) continue;
    fprintf(stderr, "%s: batch %ld, iteration %d: forbidden:", test, batch, i);
    for (int p = 0; p < processes; ++p) fprintf(stderr, " %u,%u", results[p] & 3, results[p] >> 2);
    fprintf(stderr, "\n");
    exit(1);
  }
}

// Everybody adds one to each word: each gets another number, and none is lost.
static void check_atomics(struct memory* m, int processes, long batch, int count) {
  for (int i = 0; i < count; ++i) {
    unsigned all = 0;
    for (int p = 0; p < processes; ++p) all |= 1u << m->results[batch & 1][p][i];
    if (all == (1u << processes) - 1) continue;
    fprintf(stderr, "atomics: batch %ld, iteration %d: numbers %x\n", batch, i, all);
    exit(1);
  }
}

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const char* test = argv[2];
  const int processes = atoi(argv[3]), index = atoi(argv[4]);
  const long iterations = atol(argv[5]);
  const int atomics = strcmp(test, "atomics") == 0;
  const int pairs = pairs_of(test, processes), pair = index % pairs;
  if (processes < 2 || processes > kMost) return 2;
  int fd = shm_open(argv[1], O_RDWR | O_CREAT, 0600);
  if (fd < 0) fail("shm_open");
  if (ftruncate(fd, sizeof(struct memory)) != 0) fail("ftruncate");
  struct memory* m = mmap(NULL, sizeof(struct memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (m == MAP_FAILED) fail("mmap");
  close(fd);
  static long outcomes[kOutcomes];
  wait_for_all(m, processes, index, 1);
  long batch = 1;
  for (long left = iterations; left > 0; left -= kBatch) {
    const int count = left < kBatch ? (int)left : kBatch;
    ++batch;
    const uint64_t base = (uint64_t)batch * (atomics ? (uint64_t)processes : 2);
    static uint8_t results[kBatch];
    for (int i = 0; i < count; ++i) {
      const int at = place(i) + pair * kPairWords;
      word *x = &m->x[at], *y = &m->y[at];
      // The words of an iteration have been counted up once in each batch before that had it.
      results[i] = (uint8_t)(atomics ? atomic_fetch_add(x, 1) % (uint64_t)processes
                                     : run_one(test, index / pairs, x, y, base));
    }
    memcpy(m->results[batch & 1][index], results, (size_t)count);
    wait_for_all(m, processes, index, batch);
    if (index != 0) continue;
    if (atomics) check_atomics(m, processes, batch, count);
    for (int p = 0; p < pairs && !atomics; ++p)
      check_group(test, m, processes / pairs, pairs, p, batch, count, outcomes);
  }
  wait_for_all(m, processes, index, batch + 1);
  char host[64] = "";
  gethostname(host, sizeof host - 1);
  printf("%s", host);
  for (int o = 0; index == 0 && o < kOutcomes; ++o)
    if (outcomes[o]) printf(" %d%d%d%d:%ld", o >> 6, o >> 4 & 3, o >> 2 & 3, o & 3, outcomes[o]);
  printf("\n");
  return 0;
}
