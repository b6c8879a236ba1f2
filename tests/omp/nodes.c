// Every construct once or a few times, against what it would give serially: for teams on several
// nodes, where a page that members write costs much. An argument is a shell command that runs while
// the team is in a region.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <string.h>
#include <unistd.h>

#include "expect.h"
#include "fibonacci.h"

enum { kCount = 96, kMost = 64 };
static int visits[kCount];
static int last;
#pragma omp threadprivate(last)

static void regions(int threads, const char* command) {
  int seen[kMost] = {0};
  int members = 0;
#pragma omp parallel
  {
    expect(omp_get_num_threads() == threads, "team's size");
#pragma omp atomic
    ++seen[omp_get_thread_num()];
#pragma omp atomic
    ++members;
#pragma omp barrier  // now each of them is where it is to be
#pragma omp master
    if (command) expect(system(command) == 0, "command");
  }
  for (int i = 0; i < threads; ++i) expect(seen[i] == 1, "each number once");
  expect(members == threads, "members");
  // Fewer, then as many again.
  members = 0;
#pragma omp parallel num_threads(threads > 1 ? threads - 1 : 1) reduction(+ : members)
  ++members;
  expect(members == (threads > 1 ? threads - 1 : 1), "fewer members");
#pragma omp parallel if (0)
  expect(omp_get_num_threads() == 1, "if clause");
}

static void private_data(void) {
  int good = 0;
#pragma omp parallel
  last = 100 + omp_get_thread_num();
#pragma omp parallel reduction(+ : good)
  good += last == 100 + omp_get_thread_num();
  expect(good == omp_get_max_threads(), "threadprivate");
  int first = 5;
#pragma omp parallel firstprivate(first)
  {
    first += omp_get_thread_num();
    expect(first == 5 + omp_get_thread_num(), "firstprivate");
  }
#pragma omp parallel copyin(last)
  expect(last == 100, "copyin");
}

static void visit(int i) {
#pragma omp atomic
  ++visits[i];
}
static void all_visited(int times, const char* what) {
  for (int i = 0; i < kCount; ++i) expect(visits[i] == times, what);
  memset(visits, 0, sizeof visits);
}

static void loops(void) {
#pragma omp parallel for schedule(static)
  for (int i = 0; i < kCount; ++i) visit(i);
  all_visited(1, "static");
#pragma omp parallel for schedule(dynamic, 5)
  for (int i = 0; i < kCount; ++i) visit(i);
  all_visited(1, "dynamic");
#pragma omp parallel
  {
#pragma omp for schedule(static, 3) nowait
    for (int i = 0; i < kCount; ++i) visit(i);
#pragma omp for schedule(dynamic) nowait
    for (unsigned long long i = 0; i < kCount; ++i) visit((int)i);
#pragma omp for schedule(guided, 4) nowait
    for (long i = kCount - 1; i >= 0; --i) visit((int)i);
#pragma omp for schedule(runtime)
    for (int i = 0; i < kCount; ++i) visit(i);
#pragma omp for collapse(2) schedule(monotonic : dynamic, 2)
    for (int i = 0; i < kCount / 8; ++i)
      for (int j = 0; j < 8; ++j) visit(8 * i + j);
  }
  all_visited(5, "loops after each other");
  // More constructs than members may be ahead on one node.
#pragma omp parallel
  for (int round = 0; round < 12; ++round) {
#pragma omp for schedule(dynamic, 16) nowait
    for (int i = 0; i < kCount; ++i) visit(i);
  }
  all_visited(12, "twelve loops without a barrier");
}

static void order(void) {
  int turn = 0, good = 1;
#pragma omp parallel for ordered schedule(dynamic, 3)
  for (int i = 0; i < kCount; ++i) {
#pragma omp ordered
    if (turn++ != i) good = 0;
  }
  expect(good && turn == kCount, "ordered dynamic");
  turn = 0;
#pragma omp parallel for ordered schedule(static)
  for (int i = 0; i < kCount; ++i) {
#pragma omp ordered
    if (turn++ != i) good = 0;
  }
  expect(good && turn == kCount, "ordered static");
  static long grid[13][13];
  for (int i = 0; i < 13; ++i) grid[i][0] = grid[0][i] = 1;
#pragma omp parallel for ordered(2) schedule(static, 1)
  for (int i = 1; i < 13; ++i)
    for (int j = 1; j < 13; ++j) {
#pragma omp ordered depend(sink : i - 1, j) depend(sink : i, j - 1)
      grid[i][j] = grid[i - 1][j] + grid[i][j - 1];
#pragma omp ordered depend(source)
    }
  expect(grid[12][12] == 2704156, "doacross");
}

static void shared_work(void) {
  int sections = 0, singles = 0, copies = 0, masters = 0;
#pragma omp parallel sections reduction(+ : sections)
  {
#pragma omp section
    sections += 1;
#pragma omp section
    sections += 10;
#pragma omp section
    sections += 100;
  }
  expect(sections == 111, "sections");
#pragma omp parallel reduction(+ : copies, masters)
  {
    int value = 0;
    for (int i = 0; i < 4; ++i) {
#pragma omp single
      ++singles;
#pragma omp single copyprivate(value)
      value = 7 + i;
      copies += value == 7 + i;
    }
#pragma omp single nowait
    ++singles;
#pragma omp master
    ++masters;
  }
  expect(singles == 5 && masters == 1, "single, master");
  expect(copies == 4 * omp_get_max_threads(), "copyprivate");
}

static void exclusion(void) {
  long nameless = 0, named = 0, locked = 0, nested = 0, tried = 0;
  omp_lock_t lock;
  omp_nest_lock_t nest;
  omp_init_lock(&lock);
  omp_init_nest_lock(&nest);
  omp_set_lock(&lock);  // perhaps before the process has threads on other nodes
  omp_unset_lock(&lock);
#pragma omp parallel
  for (int i = 0; i < 5; ++i) {
#pragma omp critical
    ++nameless;
#pragma omp critical(other)
    ++named;
    omp_set_lock(&lock);
    ++locked;
    omp_unset_lock(&lock);
    omp_set_nest_lock(&nest);
    omp_set_nest_lock(&nest);
    ++nested;
    omp_unset_nest_lock(&nest);
    expect(omp_test_nest_lock(&nest) == 2, "depth");
    omp_unset_nest_lock(&nest);
    omp_unset_nest_lock(&nest);
    while (!omp_test_lock(&lock)) continue;
    ++tried;
    omp_unset_lock(&lock);
  }
  const int all = 5 * omp_get_max_threads();
  expect(nameless == all && named == all && locked == all && nested == all && tried == all,
         "exclusion");
  omp_destroy_lock(&lock);
  omp_destroy_nest_lock(&nest);
}

static void reductions(void) {
  long sum = 0, product = 1, most = -1, tasks = 0;
  double real = 0;
  unsigned bits = 0;
  int ends = -1, list[3] = {0, 0, 0};
#pragma omp parallel for reduction(+ : sum, real, list) reduction(max : most) reduction(| : bits) \
    lastprivate(ends)
  for (int i = 0; i < kCount; ++i) {
    sum += i;
    real += 0.5 * i;
    bits |= 1U << (i % 32);
    if (i % 7 > most) most = i % 7;
    list[i % 3] += i;
    ends = i;
  }
  expect(sum == 4560 && real == 2280 && bits == ~0U && most == 6 && ends == kCount - 1,
         "reductions");
  expect(list[0] == 1488 && list[1] == 1520 && list[2] == 1552, "reduction of an array");
#pragma omp parallel reduction(* : product)
  product *= 2;
  expect(product == 1L << omp_get_max_threads(), "reduction of a region");
#pragma omp parallel reduction(task, + : tasks)
  {
#pragma omp for
    for (int i = 0; i < 8; ++i) {
#pragma omp task in_reduction(+ : tasks)
      tasks += i;
    }
  }
  expect(tasks == 28, "task reduction");
  int found = -1;
#pragma omp parallel for lastprivate(conditional : found) schedule(dynamic, 2)
  for (int i = 0; i < kCount; ++i)
    if (i % 10 == 3) found = i;
  expect(found == 93, "lastprivate(conditional)");
  static int in[kCount], out[kCount];
  int scan = 0;
  for (int i = 0; i < kCount; ++i) in[i] = i;
#pragma omp parallel for reduction(inscan, + : scan)
  for (int i = 0; i < kCount; ++i) {
    scan += in[i];
#pragma omp scan inclusive(scan)
    out[i] = scan;
  }
  for (int i = 0, all = 0; i < kCount; ++i) expect(out[i] == (all += i), "scan");
}

static void tasks(void) {
  int result = 0, chain = 1, count = 0;
#pragma omp parallel
#pragma omp single
  {
    result = fibonacci(10);
#pragma omp task depend(inout : chain)
    chain += 1;
#pragma omp task depend(inout : chain)
    chain *= 10;
#pragma omp taskgroup
    for (int i = 0; i < 6; ++i) {
#pragma omp task
#pragma omp atomic
      ++count;
    }
    expect(count == 6, "taskgroup");
#pragma omp taskloop reduction(+ : count) grainsize(8)
    for (int i = 0; i < kCount; ++i) count += 1;
#pragma omp taskwait depend(in : chain)
    expect(chain == 20, "dependences");
  }
  expect(result == 55 && count == 6 + kCount, "tasks");
  // All members make some, all are done behind the barrier.
  count = 0;
#pragma omp parallel
  {
    for (int i = 0; i < 3; ++i) {
#pragma omp task
#pragma omp atomic
      ++count;
    }
#pragma omp barrier
    expect(count == 3 * omp_get_num_threads(), "tasks at a barrier");
  }
  omp_event_handle_t event;
  int done = 0;
#pragma omp parallel
  {
#pragma omp single nowait
    {
#pragma omp task detach(event)
      done = 1;
      omp_fulfill_event(event);
    }
  }
  expect(done == 1, "detach");
}

static void cancellation(void) {
  // So many that none gets to their end while the cancellation is on its way.
  const int iterations = omp_get_cancellation() ? 1000000 : 100;
  int most = 0, passed = 0, asked = 0;
#pragma omp parallel
  {
#pragma omp for schedule(dynamic, 1)
    for (int i = 0; i < iterations; ++i) {
      int now = i <= 3;
      while (!now) {
        usleep(100);
#pragma omp atomic read
        now = asked;
      }
      if (i == 3) {
#pragma omp atomic write
        asked = 1;
      }
#pragma omp atomic
      ++most;
#pragma omp cancel for if (i == 3)
    }
#pragma omp for schedule(static)
    for (int i = 0; i < kCount; ++i) {
#pragma omp cancellation point for
      visit(i);
    }
  }
  expect(!omp_get_cancellation() || most < iterations, "cancelled loop");
  all_visited(1, "the loop after a cancelled one");
#pragma omp parallel
  {
    if (omp_get_thread_num() == omp_get_num_threads() - 1) {
#pragma omp cancel parallel
    }
#pragma omp barrier
#pragma omp atomic
    ++passed;
#pragma omp barrier
  }
  expect(!omp_get_cancellation() || passed == 0, "cancelled region");
#pragma omp parallel for
  for (int i = 0; i < kCount; ++i) visit(i);
  all_visited(1, "the region after a cancelled one");
}

static void nested(void) {
  int all = 0;
  omp_set_max_active_levels(2);
#pragma omp parallel num_threads(2)
  {
    const int outer = omp_get_thread_num();
    int good = 0;
#pragma omp parallel num_threads(2) reduction(+ : good)
    {
      good += omp_get_ancestor_thread_num(1) == outer && omp_get_team_size(1) == 2 &&
              omp_get_level() == 2;
#pragma omp barrier
#pragma omp for schedule(dynamic, 8)
      for (int i = 0; i < kCount; ++i) visit(i);
    }
#pragma omp barrier
#pragma omp atomic
    all += good;
  }
  expect(all == 4, "nested teams");
  all_visited(2, "loops of nested teams");
  omp_set_max_active_levels(1);
#pragma omp parallel
#pragma omp parallel
  expect(omp_get_num_threads() == 1 && omp_get_level() == 2, "serialised");
}

static void target(void) {
  int teams = 0, sum = 0;
#pragma omp target teams distribute parallel for map(tofrom : sum) reduction(+ : sum)
  for (int i = 0; i < kCount; ++i) sum += i;
  expect(sum == 4560, "target");
#pragma omp teams num_teams(2) reduction(+ : teams)
  teams += 1;
  expect(teams == 2, "teams");
}

int main(int count, char** arguments) {
  const int threads = omp_get_max_threads();
  regions(threads, count > 1 ? arguments[1] : NULL);
  private_data();
  loops();
  order();
  shared_work();
  exclusion();
  reductions();
  tasks();
  cancellation();
  nested();
  target();
  private_data();
  printf("%d threads\n", threads);
  return result();
}
