// Threads that write bytes and words of the same pages between two synchronisations, and read what
// the others wrote behind them: against what one thread gives. For pages with several writers
// (krgrun --multiple-writers). No two threads touch a byte at a time without synchronising.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <stdint.h>
#include <string.h>

#include "expect.h"

enum { kBytes = 16384, kWords = 4096, kSweeps = 150, kRounds = 40, kCells = 600, kItems = 200 };
// Of one alignment each, so that all of them are whole pages, which all threads write.
static uint8_t bytes[2][kBytes] __attribute__((aligned(4096)));
static double words[2][kWords] __attribute__((aligned(4096)));
static struct {
  uint32_t cells[kCells];
  uint32_t turns, sum, last, total;
} guarded __attribute__((aligned(4096)));
static uint16_t cells[kItems][8] __attribute__((aligned(4096)));
static uint64_t chain[kCells] __attribute__((aligned(4096)));
static uint32_t counted
    __attribute__((aligned(4096)));  // by atomic instructions: a page of its own
static char behind_counted[4096] __attribute__((aligned(4096), used));

static uint8_t next_byte(const uint8_t* old, int i, int round) {
  return (uint8_t)(3 * old[i] + old[(i + 1) % kBytes] + round);
}
static double next_word(const double* old, int i) {
  return 0.5 * old[i] + 0.25 * (old[(i + 1) % kWords] + old[(i + kWords - 1) % kWords]) + 1e-3 * i;
}

// Neighbours are different threads' in every way that a schedule can share them out.
static void interleaved(void) {
  for (int round = 0; round < kSweeps; ++round) {
    const uint8_t* from = bytes[round % 2];
    uint8_t* to = bytes[(round + 1) % 2];
    const double* old = words[round % 2];
    double* new = words[(round + 1) % 2];
    double sum = 0;
#pragma omp parallel
    {
#pragma omp for schedule(static, 1) nowait
      for (int i = 0; i < kBytes; ++i) to[i] = next_byte(from, i, round);
#pragma omp for schedule(static, 3)
      for (int i = 0; i < kWords; ++i) new[i] = next_word(old, i);
#pragma omp for schedule(static, 7) reduction(+ : sum)
      for (int i = 0; i < kWords; ++i) sum += (double)(int64_t)(new[i] * 1024);
    }
    double serial = 0;
    for (int i = 0; i < kWords; ++i) serial += (double)(int64_t)(new[i] * 1024);
    expect(sum == serial, "reduction over what all have written");
  }
}

static void check_interleaved(void) {
  static uint8_t expected_bytes[2][kBytes];
  static double expected_words[2][kWords];
  for (int i = 0; i < kBytes; ++i) expected_bytes[0][i] = (uint8_t)(i * 5);
  for (int i = 0; i < kWords; ++i) expected_words[0][i] = i % 17;
  for (int round = 0; round < kSweeps; ++round) {
    for (int i = 0; i < kBytes; ++i)
      expected_bytes[(round + 1) % 2][i] = next_byte(expected_bytes[round % 2], i, round);
    for (int i = 0; i < kWords; ++i)
      expected_words[(round + 1) % 2][i] = next_word(expected_words[round % 2], i);
  }
  expect(memcmp(bytes, expected_bytes, sizeof bytes) == 0, "bytes");
  expect(memcmp(words, expected_words, sizeof words) == 0, "words");
}

// What a lock, a critical section, a single and a copyprivate hand on, beside what all write.
static void guarded_words(int threads) {
  omp_lock_t lock;
  omp_init_lock(&lock);
#pragma omp parallel
  {
    const int self = omp_get_thread_num();
    for (int round = 0; round < kRounds; ++round) {
      for (int i = self; i < kCells; i += threads) guarded.cells[i] += (uint32_t)i;
#pragma omp critical
      {
        ++guarded.turns;
        guarded.sum += guarded.turns;
      }
      omp_set_lock(&lock);
      guarded.total += (uint32_t)self + 1;
      omp_unset_lock(&lock);
      uint32_t drawn = 0;
#pragma omp single copyprivate(drawn)
      drawn = ++guarded.last;
      expect(drawn == (uint32_t)round + 1, "copyprivate");
#pragma omp atomic
      ++counted;
#pragma omp barrier
      expect(guarded.cells[(self + 1) % kCells] == (uint32_t)((round + 1) * ((self + 1) % kCells)),
             "a neighbour's cell behind the barrier");
#pragma omp barrier
    }
  }
  omp_destroy_lock(&lock);
  const uint32_t turns = (uint32_t)(kRounds * threads);
  expect(guarded.turns == turns, "critical sections");
  expect(guarded.sum == turns * (turns + 1) / 2, "their sum");
  expect(guarded.total == (uint32_t)(kRounds * threads * (threads + 1) / 2), "locks");
  expect(counted == turns, "atomic");
  for (int i = 0; i < kCells; ++i) expect(guarded.cells[i] == (uint32_t)(kRounds * i), "cells");
}

// Loops whose iterations come to whom is free, in order of iterations where they depend.
static void shared_out(void) {
  for (int round = 1; round <= 12; ++round) {
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 1)
      for (int i = 0; i < kItems; ++i)
        for (int k = 0; k < 8; ++k) cells[i][k] = (uint16_t)(cells[i][k] + i + k * round);
#pragma omp for schedule(guided)
      for (int i = 0; i < kItems; ++i)
        for (int k = 0; k < 8; ++k) cells[i][k] ^= 1;
#pragma omp for ordered schedule(dynamic, 1)
      for (int i = 0; i < 40; ++i)
#pragma omp ordered
        chain[i + 1] = chain[i] + (uint64_t)i + 1;
#pragma omp for ordered(1) schedule(static, 1)
      for (int i = 41; i < 80; ++i) {
#pragma omp ordered depend(sink : i - 1)
        chain[i] = chain[i - 1] + 2;
#pragma omp ordered depend(source)
      }
#pragma omp single
      for (int i = 0; i < 8; ++i)
#pragma omp task
        chain[100 + i] += (uint64_t)i;
    }
  }
  uint16_t expected[kItems][8] = {{0}};
  for (int round = 1; round <= 12; ++round)
    for (int i = 0; i < kItems; ++i)
      for (int k = 0; k < 8; ++k) expected[i][k] = (uint16_t)(expected[i][k] + i + k * round) ^ 1;
  expect(memcmp(cells, expected, sizeof cells) == 0, "loops that are shared out");
  expect(chain[40] == 820, "ordered");
  expect(chain[79] == 820 + 2 * 39, "doacross");
  for (int i = 0; i < 8; ++i) expect(chain[100 + i] == (uint64_t)(12 * i), "tasks");
}

// Blocks that come and go while pages have several writers.
static void blocks(void) {
  for (int round = 0; round < 6; ++round) {
    const size_t count = (300u + 40u * (unsigned)round) << 10;
    uint8_t* block = malloc(count);
    if (!block) abort();
    memset(block, round, count);
    for (int pass = 0; pass < 6; ++pass)
#pragma omp parallel for schedule(static, 64)
      for (size_t i = 0; i < count; i += 16) block[i] = (uint8_t)(block[i] + 1);
    size_t good = 0;
    for (size_t i = 0; i < count; ++i) good += block[i] == (i % 16 == 0 ? round + 6 : round);
    expect(good == count, "a block that all write");
    free(block);
  }
}

int main(void) {
  const int threads = omp_get_max_threads();
  for (int i = 0; i < kBytes; ++i) bytes[0][i] = (uint8_t)(i * 5);
  for (int i = 0; i < kWords; ++i) words[0][i] = i % 17;
  interleaved();
  check_interleaved();
  guarded_words(threads);
  shared_out();
  blocks();
  printf("%d threads\n", threads);
  return result();
}
