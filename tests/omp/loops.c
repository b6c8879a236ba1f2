// Worksharing loops: every schedule, type and direction visits each iteration once; ordered and
// doacross keep order.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <limits.h>
#include <omp.h>
#include <string.h>

#include "expect.h"

enum { kCount = 1003 };
static int visits[kCount];

static void begin(void) {
  memset(visits, 0, sizeof visits);
}
static void visit(long i) {
  __atomic_fetch_add(&visits[i], 1, __ATOMIC_RELAXED);
}
static void all_visited(const char* what) {
  for (int i = 0; i < kCount; ++i) {
    if (visits[i] == 1) continue;
    fprintf(stderr, "iteration %d: %d visits\n", i, visits[i]);
    expect(0, what);
    return;
  }
}

static void schedules(void) {
  begin();
#pragma omp parallel for schedule(static)
  for (int i = 0; i < kCount; ++i) visit(i);
  all_visited("static");
  begin();
#pragma omp parallel for schedule(static, 7)
  for (int i = 0; i < kCount; ++i) visit(i);
  all_visited("static,7");
  begin();
#pragma omp parallel for schedule(dynamic)
  for (int i = 0; i < kCount; ++i) visit(i);
  all_visited("dynamic");
  begin();
#pragma omp parallel for schedule(monotonic : dynamic, 5)
  for (int i = 0; i < kCount; ++i) visit(i);
  all_visited("monotonic dynamic,5");
  begin();
#pragma omp parallel for schedule(guided, 3)
  for (int i = 0; i < kCount; ++i) visit(i);
  all_visited("guided,3");
  begin();
#pragma omp parallel for schedule(monotonic : guided)
  for (int i = 0; i < kCount; ++i) visit(i);
  all_visited("monotonic guided");
  begin();
#pragma omp parallel for schedule(auto)
  for (int i = 0; i < kCount; ++i) visit(i);
  all_visited("auto");
}

static void runtime_schedules(void) {
  const omp_sched_t kinds[] = {omp_sched_static, omp_sched_dynamic, omp_sched_guided,
                               omp_sched_auto};
  for (int k = 0; k < 4; ++k) {
    for (int chunk = 0; chunk < 9; chunk += 4) {
      omp_set_schedule(kinds[k], chunk);
      begin();
#pragma omp parallel for schedule(runtime)
      for (int i = 0; i < kCount; ++i) visit(i);
      all_visited("runtime");
      begin();
#pragma omp parallel
      {
#pragma omp for schedule(nonmonotonic : runtime)
        for (unsigned long long i = 0; i < kCount; ++i) visit((long)i);
      }
      all_visited("runtime, unsigned");
      begin();
#pragma omp parallel for schedule(monotonic : runtime)
      for (long i = kCount - 1; i >= 0; --i) visit(i);
      all_visited("runtime, down");
    }
  }
}

static void directions(void) {
  begin();
#pragma omp parallel for schedule(dynamic, 4)
  for (long i = 3 * kCount - 3; i >= 0; i -= 3) visit(i / 3);
  all_visited("down by 3");
  begin();
#pragma omp parallel for schedule(dynamic, 4)
  for (unsigned long long i = 3ULL * kCount - 3 + 10; i > 9; i -= 3) visit((long)(i - 10) / 3);
  all_visited("unsigned down by 3");
  begin();
#pragma omp parallel for schedule(guided)
  for (unsigned long long i = ULLONG_MAX - kCount; i < ULLONG_MAX; ++i)
    visit((long)(i - (ULLONG_MAX - kCount)));
  all_visited("unsigned at the end of the range");
  begin();
#pragma omp parallel for schedule(dynamic, 2)
  for (long i = LONG_MIN; i < LONG_MIN + 2 * kCount; i += 2) visit((i - LONG_MIN) / 2);
  all_visited("from the least long");
  begin();
#pragma omp parallel for schedule(dynamic)
  for (long i = LONG_MAX - 2 * kCount; i < LONG_MAX - 1; i += 2)
    visit((i - (LONG_MAX - 2 * kCount)) / 2);
  all_visited("to the greatest long");
  int entered = 0;
#pragma omp parallel for schedule(dynamic) reduction(+ : entered)
  for (int i = 5; i < 5; ++i) ++entered;
  expect(entered == 0, "an empty loop is not entered");
}

static void without_waiting(void) {
  int counts[40] = {0};
#pragma omp parallel
  {
    for (int loop = 0; loop < 40; ++loop) {
#pragma omp for schedule(dynamic) nowait
      for (int i = 0; i < 16; ++i) __atomic_fetch_add(&counts[loop], 1, __ATOMIC_RELAXED);
    }
  }
  for (int loop = 0; loop < 40; ++loop) expect(counts[loop] == 16, "loops without barriers");
}

static void last_values(void) {
  int last = -1, conditional = -1;
#pragma omp parallel for schedule(dynamic, 3) lastprivate(last)
  for (int i = 0; i < kCount; ++i) last = i;
  expect(last == kCount - 1, "lastprivate");
#pragma omp parallel for schedule(dynamic, 3) lastprivate(conditional : conditional)
  for (int i = 0; i < kCount; ++i) {
    if (i % 10 == 4) conditional = i;
  }
  expect(conditional == 994, "lastprivate(conditional)");
  int place = 0;
  begin();
#pragma omp parallel for collapse(2) schedule(dynamic, 5) lastprivate(place)
  for (int i = 0; i < 17; ++i) {
    for (int j = 0; j < 59; ++j) {
      place = i * 59 + j;
      visit(place);
    }
  }
  all_visited("collapse");
  expect(place == kCount - 1, "collapse lastprivate");
}

static void scans(void) {
  static int sums[kCount];
  int sum = 0;
#pragma omp parallel for reduction(inscan, + : sum)
  for (int i = 0; i < kCount; ++i) {
    sum += i;
#pragma omp scan inclusive(sum)
    sums[i] = sum;
  }
  for (int i = 0; i < kCount; ++i) expect(sums[i] == i * (i + 1) / 2, "scan");
}

static void ordered(void) {
  long next = 0;
#pragma omp parallel for ordered schedule(dynamic, 2)
  for (long i = 0; i < kCount; ++i) {
#pragma omp ordered
    {
      expect(next == i, "ordered dynamic");
      next = i + 1;
    }
  }
  next = 0;
#pragma omp parallel for ordered schedule(static)
  for (unsigned long long i = 0; i < kCount; ++i) {
#pragma omp ordered
    {
      expect(next == (long)i, "ordered static, unsigned");
      next = (long)i + 1;
    }
  }
  next = kCount - 1;
#pragma omp parallel for ordered schedule(guided)
  for (long i = kCount - 1; i >= 0; --i) {
    if (i % 3 == 0) {
#pragma omp ordered
      {
        expect(next >= i, "ordered guided, not in each iteration");
        next = i;
      }
    }
  }
  next = 0;
  omp_set_schedule(omp_sched_static, 3);
#pragma omp parallel for ordered schedule(runtime)
  for (long i = 0; i < kCount; ++i) {
#pragma omp ordered
    expect(next++ == i, "ordered runtime");
  }
}

enum { kRows = 40, kColumns = 30 };
static int grid[kRows][kColumns];

static void check_grid(const char* what) {
  static int serial[kRows][kColumns];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kColumns; ++j)
      serial[i][j] = (i > 0 ? serial[i - 1][j] : 1) % 1000 + (j > 0 ? serial[i][j - 1] : 1) % 1000;
  }
  expect(memcmp(grid, serial, sizeof grid) == 0, what);
}
static void step(int i, int j) {
  grid[i][j] = (i > 0 ? grid[i - 1][j] : 1) % 1000 + (j > 0 ? grid[i][j - 1] : 1) % 1000;
}

static void doacross(void) {
  memset(grid, 0, sizeof grid);
#pragma omp parallel for ordered(2) schedule(static)
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kColumns; ++j) {
#pragma omp ordered depend(sink : i - 1, j) depend(sink : i, j - 1)
      step(i, j);
#pragma omp ordered depend(source)
    }
  }
  check_grid("doacross static");
  memset(grid, 0, sizeof grid);
#pragma omp parallel for ordered(2) schedule(dynamic, 1)
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kColumns; ++j) {
#pragma omp ordered depend(sink : i - 1, j) depend(sink : i, j - 1)
      step(i, j);
#pragma omp ordered depend(source)
    }
  }
  check_grid("doacross dynamic");
  memset(grid, 0, sizeof grid);
#pragma omp parallel for ordered(2) schedule(guided, 3)
  for (unsigned long long i = 1; i < kRows + 1; ++i) {
    for (unsigned long long j = 1; j < kColumns + 1; ++j) {
#pragma omp ordered depend(sink : i - 1, j) depend(sink : i, j - 1)
      step((int)i - 1, (int)j - 1);
#pragma omp ordered depend(source)
    }
  }
  check_grid("doacross guided, unsigned");
  static long chain[kCount];
  chain[0] = 1;
#pragma omp parallel for ordered(1) schedule(static, 4)
  for (int i = 1; i < kCount; ++i) {
#pragma omp ordered depend(sink : i - 1)
    chain[i] = chain[i - 1] + i;
#pragma omp ordered depend(source)
  }
  expect(chain[kCount - 1] == 1 + (long)kCount * (kCount - 1) / 2, "doacross chain");
}

int main(void) {
  for (int round = 0; round < 3; ++round) {
    schedules();
    runtime_schedules();
    directions();
    without_waiting();
    last_values();
    scans();
    ordered();
    doacross();
  }
  return result();
}
