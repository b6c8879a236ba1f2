// Blocks of a grid, each computed by a task from those left of it and above it: dependences order
// tasks of all members, and what one task has written is seen by the next one wherever that runs.
// Blocks share pages. Against the serial result.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <unistd.h>

#include "expect.h"

enum { kBlocks = 6, kSide = 24, kLine = kBlocks * kSide, kRounds = 3 };
typedef double Grid[kLine + 1][kLine + 1];
static Grid parallel_grid, serial_grid;
static char tokens[kBlocks + 1][kBlocks + 1];

static void compute(Grid grid, int row, int column) {
  for (int i = 1 + row * kSide; i <= (row + 1) * kSide; ++i)
    for (int j = 1 + column * kSide; j <= (column + 1) * kSide; ++j)
      grid[i][j] = 0.3 * grid[i][j] + 0.4 * grid[i - 1][j] + 0.3 * grid[i][j - 1] + 1;
}

int main(void) {
  for (int i = 0; i <= kLine; ++i) parallel_grid[i][0] = serial_grid[i][0] = i;
  for (int round = 0; round < kRounds; ++round)
    for (int row = 0; row < kBlocks; ++row)
      for (int column = 0; column < kBlocks; ++column) compute(serial_grid, row, column);
  int members[64] = {0}, different = 0;
#pragma omp parallel
#pragma omp single
  for (int round = 0; round < kRounds; ++round) {
    for (int row = 0; row < kBlocks; ++row) {
      for (int column = 0; column < kBlocks; ++column) {
#pragma omp task depend(in                                                  \
                        : tokens[row][column + 1], tokens[row + 1][column]) \
    depend(inout                                                            \
           : tokens[row + 1][column + 1])
        {
          compute(parallel_grid, row, column);
          members[omp_get_thread_num()] = 1;
          usleep(1000);
        }
      }
    }
  }
  int wrong = 0;
  for (int i = 0; i <= kLine; ++i)
    for (int j = 0; j <= kLine; ++j) wrong += parallel_grid[i][j] != serial_grid[i][j];
  expect(wrong == 0, "the serial result");
  for (int i = 0; i < omp_get_max_threads(); ++i) different += members[i];
  expect(different >= 1, "somebody");
  printf("%d threads\n", omp_get_max_threads());
  return result();
}
