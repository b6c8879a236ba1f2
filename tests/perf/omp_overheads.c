// Time of OpenMP constructs beyond that of the work in them, as EPCC's microbenchmarks define it:
// (time of many of the construct around a short delay) - (time of the delays alone), medians of
// some repetitions of a millisecond of work. Prints one line per construct: its name, microseconds.
// usage: omp_overheads [CONSTRUCT]     the number of threads comes from OMP_NUM_THREADS
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kTimes = 10000, kRepeats = 15, kDelay = 100 };
static volatile double sink;

static void delay(void) {
  double a = 0;
  for (int i = 0; i < kDelay; ++i) a += i;
  sink = a;
}

static void reference(void) {
  for (int i = 0; i < kTimes; ++i) delay();
}
static void parallel(void) {
  for (int i = 0; i < kTimes; ++i) {
#pragma omp parallel
    delay();
  }
}
static void for_static(void) {
#pragma omp parallel
  for (int i = 0; i < kTimes; ++i) {
#pragma omp for schedule(static)
    for (int j = 0; j < omp_get_num_threads(); ++j) delay();
  }
}
static void for_dynamic(void) {
#pragma omp parallel
  for (int i = 0; i < kTimes / 10; ++i) {
#pragma omp for schedule(dynamic)
    for (int j = 0; j < 10 * omp_get_num_threads(); ++j) delay();
  }
}
static void barrier(void) {
#pragma omp parallel
  for (int i = 0; i < kTimes; ++i) {
    delay();
#pragma omp barrier
  }
}
static void critical(void) {
#pragma omp parallel
  for (int i = 0; i < kTimes / omp_get_num_threads(); ++i) {
#pragma omp critical
    delay();
  }
}
static void single(void) {
#pragma omp parallel
  for (int i = 0; i < kTimes; ++i) {
#pragma omp single
    delay();
  }
}
static void reduction(void) {
  int sum = 0;
  for (int i = 0; i < kTimes; ++i) {
#pragma omp parallel reduction(+ : sum)
    {
      delay();
      sum += 1;
    }
  }
  if (sum == 0) puts("no sum");
}
static void task(void) {
#pragma omp parallel
#pragma omp master
  for (int i = 0; i < kTimes * omp_get_num_threads(); ++i) {
#pragma omp task
    delay();
  }
}
static void parallel_tasks(void) {
#pragma omp parallel
  for (int i = 0; i < kTimes; ++i) {
#pragma omp task
    delay();
  }
}

static double seconds_of(void (*function)(void)) {
  const double start = omp_get_wtime();
  function();
  return omp_get_wtime() - start;
}

static int compare(const void* left, const void* right) {
  const double a = *(const double*)left, b = *(const double*)right;
  return (a > b) - (a < b);
}
static double median(double values[kRepeats]) {
  qsort(values, kRepeats, sizeof *values, compare);
  return values[kRepeats / 2];
}

int main(int argc, char** argv) {
  static const struct {
    const char* name;
    void (*function)(void);
  } constructs[] = {{"parallel", parallel},
                    {"for_static", for_static},
                    {"for_dynamic", for_dynamic},
                    {"barrier", barrier},
                    {"critical", critical},
                    {"single", single},
                    {"reduction", reduction},
                    {"task", task},
                    {"parallel_tasks", parallel_tasks}};
  for (unsigned c = 0; c < sizeof constructs / sizeof constructs[0]; ++c) {
    if (argc > 1 && strcmp(argv[1], constructs[c].name) != 0) continue;
    double alone[kRepeats], seconds[kRepeats];
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      alone[repeat] = seconds_of(reference);
      seconds[repeat] = seconds_of(constructs[c].function);
    }
    printf("%s %.4f\n", constructs[c].name, (median(seconds) - median(alone)) * 1e6 / kTimes);
    fflush(stdout);
  }
  return 0;
}
