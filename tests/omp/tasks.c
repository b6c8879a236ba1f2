// Explicit tasks: dependences, groups, loops, reductions, priorities, events, final and undeferred
// ones.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <string.h>
#include <unistd.h>

#include "expect.h"

static int fib(int n) {
  if (n < 2) return n;
  int a = 0, b = 0;
#pragma omp task shared(a) firstprivate(n)
  a = fib(n - 1);
#pragma omp task shared(b) firstprivate(n) untied
  b = fib(n - 2);
#pragma omp taskwait
  return a + b;
}

static void recursion(void) {
  int result = 0;
#pragma omp parallel
#pragma omp single
  result = fib(18);
  expect(result == 2584, "fib");
}

static void many(void) {
  long sum = 0;
#pragma omp parallel
  {
#pragma omp single nowait
    for (long i = 0; i < 5000; ++i) {
#pragma omp task firstprivate(i) shared(sum)
      {
#pragma omp atomic
        sum += i;
      }
    }
#pragma omp barrier
    expect(__atomic_load_n(&sum, __ATOMIC_RELAXED) == 5000L * 4999 / 2,
           "a barrier waits for tasks");
  }
}

static void dependences(void) {
  int chain = 0, order[50], readers = 0;
#pragma omp parallel
#pragma omp single
  {
    for (int i = 0; i < 50; ++i) {
#pragma omp task depend(inout : chain) firstprivate(i)
      order[chain++] = i;
    }
#pragma omp task depend(out : chain)
    chain = 1000;
    for (int i = 0; i < 10; ++i) {
#pragma omp task depend(in : chain) shared(readers)
      {
        expect(chain == 1000, "in after out");
#pragma omp atomic
        ++readers;
      }
    }
#pragma omp task depend(inout : chain)
    {
      expect(readers == 10, "out after in");
      chain = 7;
    }
#pragma omp task depend(in : chain) if (0)
    expect(chain == 7, "undeferred task waits for its dependences");
  }
  for (int i = 0; i < 50; ++i) expect(order[i] == i, "inout chain");
}

static void other_dependences(void) {
  int a = 0, b = 0, total = 0;
#pragma omp parallel
#pragma omp single
  {
    for (int i = 0; i < 8; ++i) {
#pragma omp task depend(mutexinoutset : total)
      ++total;
    }
    omp_depend_t object;
#pragma omp depobj(object) depend(inout : a)
#pragma omp task depend(depobj : object)
    a = 3;
#pragma omp task depend(in : a) depend(out : b) depend(in : total)
    b = a + total;
#pragma omp taskwait depend(in : b)
    expect(b == 11, "depobj, mutexinoutset, taskwait depend");
#pragma omp depobj(object) destroy
  }
}

static void deep(int depth, int* count) {
  if (depth == 0) {
    __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    return;
  }
  for (int i = 0; i < 3; ++i) {
#pragma omp task firstprivate(depth, count)
    deep(depth - 1, count);
  }
}

static void groups(void) {
  int count = 0;
#pragma omp parallel
#pragma omp single
  {
#pragma omp taskgroup
    deep(6, &count);
    expect(count == 729, "taskgroup waits for descendants");
    count = 0;
    deep(4, &count);
#pragma omp taskwait
  }
  expect(count == 81, "the region's end waits for descendants");
}

static void group_reductions(void) {
  long sum = 0;
  int product = 1;
#pragma omp parallel
#pragma omp single
#pragma omp taskgroup task_reduction(+ : sum) task_reduction(* : product)
  {
    for (int i = 0; i < 200; ++i) {
#pragma omp task in_reduction(+ : sum) firstprivate(i)
      {
        sum += i;
#pragma omp task in_reduction(+ : sum)
        sum += 1;
      }
    }
#pragma omp task in_reduction(* : product)
    product *= 6;
#pragma omp taskgroup task_reduction(+ : sum)
    {
#pragma omp task in_reduction(+ : sum)
      sum += 1000;
    }
  }
  expect(sum == 19900 + 200 + 1000 && product == 6, "task_reduction");
}

static void region_reductions(void) {
  long sum = 0;
  int per_loop = 0, threads = 0;
#pragma omp parallel reduction(task, + : sum)
  {
#pragma omp task in_reduction(+ : sum)
    sum += 2;
    sum += 1;
#pragma omp single
    threads = omp_get_num_threads();
  }
  expect(sum == 3L * threads, "parallel reduction(task)");
#pragma omp parallel
  {
#pragma omp for reduction(task, + : per_loop) schedule(dynamic)
    for (int i = 0; i < 64; ++i) {
#pragma omp task in_reduction(+ : per_loop) firstprivate(i)
      per_loop += i;
    }
    expect(per_loop == 2016, "for reduction(task)");
  }
  int sections_sum = 0;
#pragma omp parallel sections reduction(task, + : sections_sum)
  {
#pragma omp section
    {
#pragma omp task in_reduction(+ : sections_sum)
      sections_sum += 5;
    }
#pragma omp section
    sections_sum += 2;
  }
  expect(sections_sum == 7, "sections reduction(task)");
}

static void loops(void) {
  static int visits[500];
  long sum = 0;
#pragma omp parallel
#pragma omp single
  {
#pragma omp taskloop grainsize(7)
    for (int i = 0; i < 500; ++i) ++visits[i];
#pragma omp taskloop num_tasks(13)
    for (unsigned long long i = 500; i > 0; --i) ++visits[i - 1];
#pragma omp taskloop nogroup if (0)
    for (long i = 0; i < 500; i += 2) ++visits[i];
#pragma omp taskloop reduction(+ : sum) grainsize(strict : 11)
    for (int i = 0; i < 500; ++i) sum += i;
#pragma omp taskgroup task_reduction(+ : sum)
    {
#pragma omp taskloop in_reduction(+ : sum) num_tasks(strict : 4) nogroup
      for (int i = 0; i < 500; ++i) sum += 1;
    }
#pragma omp taskloop collapse(2) shared(sum)
    for (int i = 0; i < 20; ++i) {
      for (int j = 0; j < 25; ++j) ++visits[i * 25 + j];
    }
#pragma omp taskloop reduction(+ : sum)
    for (int i = 0; i < 0; ++i) sum += i;
  }
  for (int i = 0; i < 500; ++i) expect(visits[i] == (i % 2 == 0 ? 4 : 3), "taskloop");
  expect(sum == 124750 + 500, "taskloop reduction");
  memset(visits, 0, sizeof visits);
}

static void special(void) {
  int in_final = 0, children_final = 1, at_once = 0;
#pragma omp parallel
#pragma omp single
  {
#pragma omp task final(1) shared(in_final, children_final)
    {
      in_final = omp_in_final();
      int child = 0;
#pragma omp task shared(child)
      child = omp_in_final() ? 1 : 2;
      children_final = child;
    }
#pragma omp task if (0) shared(at_once)
    at_once = 1;
    expect(at_once == 1, "undeferred");
#pragma omp task mergeable
    (void)0;
#pragma omp taskyield
  }
  expect(in_final == 1 && children_final == 1, "final");
  int outside = 0;
#pragma omp task shared(outside)
  outside = 1;
#pragma omp taskwait
  expect(outside == 1, "a task outside of regions");
}

static void events(void) {
  int body = 0, after = 0;
#pragma omp parallel
#pragma omp single
  {
    omp_event_handle_t event;
#pragma omp task detach(event) depend(out : body)
    body = 1;
#pragma omp task depend(in : body) shared(after)
    after = body + 1;
    omp_fulfill_event(event);
#pragma omp taskwait
    expect(after == 2, "fulfilled by the parent");
  }
  int done = 0;
#pragma omp parallel
#pragma omp single
  {
    for (int i = 0; i < 20; ++i) {
      omp_event_handle_t own;
#pragma omp task detach(own) shared(done)
      {
#pragma omp atomic
        ++done;
        omp_fulfill_event(own);
      }
    }
  }
  expect(done == 20, "fulfilled by itself");
}

static void priorities(void) {
  int order[30], next = 0;
#pragma omp parallel
#pragma omp single
  {
    int gate = 0;
    for (int i = 0; i < 30; ++i) {
#pragma omp task priority(i) firstprivate(i)
      {
        int place;
#pragma omp atomic capture
        place = next++;
        order[place] = i;
      }
    }
    (void)gate;
  }
  int seen = 0;
  for (int i = 0; i < 30; ++i) seen |= 1 << order[i];
  expect(next == 30 && seen == (1 << 30) - 1, "priorities");
  if (omp_get_max_threads() == 1 && omp_get_max_task_priority() >= 29) {
    for (int i = 0; i < 30; ++i) expect(order[i] == 29 - i, "by priority");
  }
}

static void cancelled_groups(void) {
  if (!omp_get_cancellation()) return;
  for (int round = 0; round < 10; ++round) {
    int ran = 0;
#pragma omp parallel
#pragma omp single
#pragma omp taskgroup
    for (int i = 0; i < 1000; ++i) {
#pragma omp task firstprivate(i) shared(ran)
      {
#pragma omp atomic
        ++ran;
        if (i == 5) {
#pragma omp cancel taskgroup
        }
#pragma omp cancellation point taskgroup
      }
    }
    expect(ran >= 1 && ran <= 1000, "cancel taskgroup");
  }
}

enum { kNothing, kLong, kMeet };

static void run_kind(int kind, int* here) {
  if (kind == kLong) usleep(100 * 1000);
  if (kind != kMeet) return;
  __atomic_fetch_add(here, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < 10 * 1000 && __atomic_load_n(here, __ATOMIC_RELAXED) < 2; ++i) usleep(1000);
}

static void make(int kind, int* here) {
#pragma omp task firstprivate(kind, here)
  run_kind(kind, here);
}

// Though most tasks of a function are over at once, several threads share long ones of it. Not on
// several nodes, where a member gives tasks away for a small part of its time only.
static void long_after_short(void) {
  if (getenv("KRG_OMP_NODES") != NULL) return;
  int here = 0;
#pragma omp parallel
#pragma omp single
  if (omp_get_num_threads() > 1) {
    for (int i = 0; i < 20 * 1000; ++i) make(kNothing, &here);
    make(kLong, &here);
    const double begin = omp_get_wtime();
    make(kMeet, &here);
    make(kMeet, &here);
#pragma omp taskwait
    expect(omp_get_wtime() - begin < 10, "long tasks after short ones run at the same time");
  }
}

int main(void) {
  long_after_short();
  for (int round = 0; round < 5; ++round) {
    recursion();
    many();
    dependences();
    other_dependences();
    groups();
    group_reductions();
    region_reductions();
    loops();
    special();
    events();
    priorities();
    cancelled_groups();
  }
  return result();
}
