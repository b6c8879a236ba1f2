// Parallel regions and what their threads do together: nesting, sections, single, critical, atomic,
// barrier, reductions, cancellation, threadprivate, locks.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <complex.h>
#include <omp.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expect.h"

static int counter;
#pragma omp threadprivate(counter)

static void sizes(void) {
  const int most = omp_get_max_threads();
  for (int threads = 1; threads <= 9; ++threads) {
    int members = 0, numbers = 0;
#pragma omp parallel num_threads(threads) reduction(+ : members, numbers)
    {
      members += 1;
      numbers += omp_get_thread_num();
      expect(omp_get_num_threads() == threads, "omp_get_num_threads");
      expect(omp_in_parallel() == (threads > 1), "omp_in_parallel");
    }
    expect(members == threads && numbers == threads * (threads - 1) / 2, "num_threads");
  }
  int members = 0;
#pragma omp parallel if (0)
  ++members;
  expect(members == 1, "if(0)");
  expect(omp_get_max_threads() == most && omp_get_level() == 0, "as before");
}

static void nesting(void) {
  omp_set_max_active_levels(3);
  int leaves = 0;
#pragma omp parallel num_threads(3)
  {
    const int outer = omp_get_thread_num();
#pragma omp parallel num_threads(2)
    {
      expect(omp_get_level() == 2 && omp_get_active_level() == 2, "level 2");
      expect(omp_get_ancestor_thread_num(1) == outer && omp_get_team_size(1) == 3, "ancestor");
      expect(omp_get_ancestor_thread_num(2) == omp_get_thread_num(), "own number");
#pragma omp parallel num_threads(2)
      {
#pragma omp parallel num_threads(2)
        {
          expect(omp_get_num_threads() == 1, "beyond the active levels");
#pragma omp atomic
          ++leaves;
        }
      }
    }
  }
  expect(leaves == 12, "nested regions");
  omp_set_max_active_levels(1);
}

static void sections(void) {
  int done[5] = {0};
#pragma omp parallel
  {
#pragma omp sections
    {
#pragma omp section
      ++done[0];
#pragma omp section
      ++done[1];
#pragma omp section
      ++done[2];
    }
    expect(done[0] + done[1] + done[2] == 3, "sections end with a barrier");
  }
#pragma omp parallel sections
  {
#pragma omp section
    ++done[3];
#pragma omp section
    ++done[4];
  }
  for (int i = 0; i < 5; ++i) expect(done[i] == 1, "each section once");
}

static void singles(void) {
  int times = 0, masters = 0;
#pragma omp parallel
  {
    for (int i = 0; i < 100; ++i) {
#pragma omp single nowait
      {
#pragma omp atomic
        ++times;
      }
    }
    int value = -1;
    for (int i = 0; i < 50; ++i) {
#pragma omp single copyprivate(value)
      value = i * 3;
      expect(value == i * 3, "copyprivate");
    }
#pragma omp master
    ++masters;
#pragma omp barrier
    expect(masters == 1, "master");
  }
  expect(times == 100, "single nowait");
}

static void exclusion(void) {
  long plain = 0, named = 0, atomic = 0;
  double real = 0;
  complex double both = 0;
#pragma omp parallel
  {
    for (int i = 0; i < 2000; ++i) {
#pragma omp critical
      ++plain;
#pragma omp critical(some)
      ++named;
#pragma omp atomic
      ++atomic;
#pragma omp atomic
      real += 0.5;
    }
#pragma omp critical(other)
    both += 1 + 2 * I;
  }
  int threads = omp_get_max_threads();
  expect(plain == 2000L * threads && named == plain && atomic == plain, "critical and atomic");
  expect(real == 1000.0 * threads && creal(both) == threads, "atomic double");
}

static void barriers(void) {
  static int stage[64];
  memset(stage, 0, sizeof stage);
#pragma omp parallel
  {
    const int self = omp_get_thread_num(), threads = omp_get_num_threads();
    for (int i = 1; i <= 300; ++i) {
      __atomic_store_n(&stage[self], i, __ATOMIC_RELAXED);
#pragma omp barrier
      for (int other = 0; other < threads; ++other)
        expect(__atomic_load_n(&stage[other], __ATOMIC_RELAXED) == i, "barrier");
#pragma omp barrier
    }
  }
}

static void reductions(void) {
  int sum = 1, product = 1, least = 99, most = -1, ands = 1, ors = 0;
  unsigned bits_and = ~0U, bits_or = 0, bits_xor = 0;
  double difference = 0;
  long array[4] = {0};
#pragma omp parallel for reduction(+ : sum, array) reduction(* : product) reduction(min : least) \
    reduction(max : most) reduction(&& : ands) reduction(|| : ors) reduction(& : bits_and)       \
    reduction(| : bits_or) reduction(^ : bits_xor) reduction(- : difference)
  for (int i = 0; i < 24; ++i) {
    sum += i;
    if (i % 8 == 7) product *= 3;
    if (i < least) least = i;
    if (i > most) most = i;
    ands = ands && i >= 0;
    ors = ors || i == 17;
    bits_and &= ~(1U << i);
    bits_or |= 1U << i;
    bits_xor ^= 3U << i;
    difference -= i;
    array[i % 4] += i;
  }
  expect(sum == 277 && product == 27 && least == 0 && most == 23 && ands == 1 && ors == 1,
         "reductions");
  expect(bits_and == 0xff000000U && bits_or == 0xffffffU && bits_xor == 0x1000001U,
         "bit reductions");
  expect(difference == -276 && array[0] == 60 && array[3] == 78, "reductions of others");
}

static void thread_private(void) {
  counter = 7;
#pragma omp parallel copyin(counter)
  {
    expect(counter == 7, "copyin");
    counter += omp_get_thread_num();
  }
#pragma omp parallel
  expect(counter == 7 + omp_get_thread_num(), "threadprivate lasts");
}

static void cancellation(void) {
  if (!omp_get_cancellation()) return;
  for (int round = 0; round < 20; ++round) {
    int after = 0, found = 0;
#pragma omp parallel
    {
      if (omp_get_thread_num() == 0) {
#pragma omp cancel parallel
      }
#pragma omp barrier
#pragma omp atomic
      ++after;
    }
    expect(after == 0, "cancel parallel");
#pragma omp parallel
    {
#pragma omp for schedule(dynamic)
      for (int i = 0; i < 100000; ++i) {
        if (i == 50) {
#pragma omp atomic
          ++found;
#pragma omp cancel for
        }
#pragma omp cancellation point for
      }
#pragma omp barrier
      expect(found == 1, "cancel for");
    }
    int sections_run = 0;
#pragma omp parallel
    {
#pragma omp sections reduction(+ : sections_run)
      {
#pragma omp section
        {
          ++sections_run;
#pragma omp cancel sections
        }
#pragma omp section
        ++sections_run;
      }
    }
    expect(sections_run >= 0 && sections_run <= 2, "cancel sections");
  }
}

static void locks(void) {
  omp_lock_t lock;
  omp_nest_lock_t nest;
  omp_init_lock(&lock);
  omp_init_nest_lock(&nest);
  long count = 0, depth = 0;
#pragma omp parallel
  {
    for (int i = 0; i < 1000; ++i) {
      omp_set_lock(&lock);
      ++count;
      omp_unset_lock(&lock);
      while (!omp_test_lock(&lock)) continue;
      ++count;
      omp_unset_lock(&lock);
      omp_set_nest_lock(&nest);
      expect(omp_test_nest_lock(&nest) == 2, "nest lock's depth");
      ++depth;
      omp_unset_nest_lock(&nest);
      omp_unset_nest_lock(&nest);
    }
  }
  expect(count == 2000L * omp_get_max_threads() && depth * 2 == count, "locks");
  omp_destroy_lock(&lock);
  omp_destroy_nest_lock(&nest);
}

static void* in_pthread(void* result) {
  long sum = 0;
  for (int round = 0; round < 20; ++round) {
#pragma omp parallel for reduction(+ : sum) num_threads(3)
    for (int i = 0; i < 100; ++i) sum += i;
  }
  *(long*)result = sum;
  return NULL;
}

static void pthreads(void) {
  enum { kThreads = 4 };
  pthread_t threads[kThreads];
  long sums[kThreads];
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < kThreads; ++i) pthread_create(&threads[i], NULL, in_pthread, &sums[i]);
    for (int i = 0; i < kThreads; ++i) {
      pthread_join(threads[i], NULL);
      expect(sums[i] == 20 * 4950, "regions of several pthreads");
    }
  }
}

static void copyable(void) {
  intptr_t value = 0;
  int chosen = 0;
#pragma omp parallel firstprivate(value) shared(chosen)
  {
    value += 1;
#pragma omp critical
    chosen += (int)value;
  }
  expect(chosen == omp_get_max_threads(), "firstprivate");
}

// Only libkrgomp lets the child of a fork begin regions after its parent had some.
static void after_fork(void) {
  if (getenv("KRG_TEST_FORK") == NULL) return;
  const pid_t child = fork();
  if (child == 0) {
    long sum = 0;
#pragma omp parallel for reduction(+ : sum)
    for (int i = 0; i < 100; ++i) sum += i;
    _exit(sum == 4950 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  expect(status == 0, "a region in a child of fork");
}

int main(void) {
  for (int round = 0; round < 3; ++round) {
    sizes();
    nesting();
    sections();
    singles();
    exclusion();
    barriers();
    reductions();
    thread_private();
    cancellation();
    locks();
    pthreads();
    copyable();
    after_fork();
  }
  return result();
}
