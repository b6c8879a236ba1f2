// A grid that threads share out by planes, along one axis and then along another, with a barrier
// behind each of many short loops: what a solver does that sweeps in three directions. Chunks of
// planes end inside of pages, and those of the other axis cross all of them, so that threads of one
// node and of several write the same pages. For pages with several writers (krgrun
// --multiple-writers): the grid has to be what one thread makes of it. All words are integers.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <stdint.h>
#include <string.h>

#include "expect.h"

enum { kSide = 18, kParts = 5, kSteps = 60 };
typedef uint64_t Grid[kSide][kSide][kSide][kParts];
static Grid *state, *change, *sums;

static uint64_t mix(uint64_t word) {
  word = (word ^ (word >> 29)) * 0x9e3779b97f4a7c15u;
  return word ^ (word >> 32);
}

static void begin(void) {
#pragma omp for
  for (int k = 0; k < kSide; ++k)
    for (int j = 0; j < kSide; ++j)
      for (int i = 0; i < kSide; ++i)
        for (int m = 0; m < kParts; ++m)
          (*state)[k][j][i][m] = mix((uint64_t)(((k * kSide + j) * kSide + i) * kParts + m));
}

static void sum_neighbours(int step) {
#pragma omp for
  for (int k = 0; k < kSide; ++k)
    for (int j = 0; j < kSide; ++j)
      for (int i = 0; i < kSide; ++i) (*sums)[k][j][i][0] = (*state)[k][j][i][0] + (uint64_t)step;
#pragma omp for
  for (int k = 1; k < kSide - 1; ++k)
    for (int j = 0; j < kSide; ++j)
      for (int i = 0; i < kSide; ++i)
        for (int m = 0; m < kParts; ++m)
          (*change)[k][j][i][m] = (*state)[k - 1][j][i][m] ^ (*state)[k + 1][j][i][m] ^
                                  (*sums)[k - 1][j][i][0] ^ (*sums)[k + 1][j][i][0];
  for (int k = 1; k < 4; ++k) {  // one plane, shared out by its lines
#pragma omp for
    for (int j = 1; j < kSide - 1; ++j)
      for (int i = 0; i < kSide; ++i)
        for (int m = 0; m < kParts; ++m)
          (*change)[k][j][i][m] += (*state)[k + 1][j][i][m] - (*sums)[k][j - 1][i][0];
  }
}

static void sweep_planes(void) {
#pragma omp for
  for (int k = 1; k < kSide - 1; ++k)
    for (int j = 0; j < kSide; ++j)
      for (int i = 1; i < kSide; ++i)
        for (int m = 0; m < kParts; ++m) (*change)[k][j][i][m] += mix((*change)[k][j][i - 1][m]);
}

static void sweep_lines(void) {
#pragma omp for
  for (int j = 1; j < kSide - 1; ++j)
    for (int k = 1; k < kSide; ++k)
      for (int i = 0; i < kSide; ++i)
        for (int m = 0; m < kParts; ++m) (*change)[k][j][i][m] += mix((*change)[k - 1][j][i][m]);
}

static void add(void) {
#pragma omp for
  for (int k = 1; k < kSide - 1; ++k)
    for (int j = 0; j < kSide; ++j)
      for (int i = 0; i < kSide; ++i)
        for (int m = 0; m < kParts; ++m) (*state)[k][j][i][m] += (*change)[k][j][i][m];
}

static void make_step(int step) {
  sum_neighbours(step);
  sweep_planes();
  sweep_lines();
  add();
}

// Blocks of their own, of whole and of broken pages, as a program's malloc gives them.
static void allocate(void) {
  state = calloc(1, sizeof *state);
  change = calloc(1, sizeof *change);
  sums = calloc(1, sizeof *sums);
  if (!state || !change || !sums) abort();
}

int main(void) {
  allocate();
  Grid* const expected = state;
  begin();  // by one thread
  for (int step = 0; step < kSteps; ++step) make_step(step);
  allocate();
#pragma omp parallel
  {
    begin();
    for (int step = 0; step < kSteps / 2; ++step) make_step(step);
  }
  for (int step = kSteps / 2; step < kSteps; ++step) {
#pragma omp parallel
    make_step(step);
  }
  expect(memcmp(state, expected, sizeof *state) == 0, "the grid that one thread makes");
  printf("%d threads\n", omp_get_max_threads());
  return result();
}
