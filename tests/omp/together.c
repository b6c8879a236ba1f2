// Explicit tasks that wait for one another: as many as the team has members, so that they only end
// if all members run one at the same time; each construct that makes or orders tasks, with the
// result that it has serially.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <string.h>
#include <unistd.h>

#include "expect.h"
#include "fibonacci.h"

enum { kMost = 64 };
static const double kLongest_s = 60;

// Who is there: members' numbers, 1 + them. Each is written by one task.
static int there[kMost];

static int all_there(int count) {
  for (int i = 0; i < count; ++i)
    if (__atomic_load_n(&there[i], __ATOMIC_ACQUIRE) == 0) return 0;
  return 1;
}

// The caller is one of `count`. Whether all of them came.
static int meet(int place, int count) {
  __atomic_store_n(&there[place], 1 + omp_get_thread_num(), __ATOMIC_RELEASE);
  const double end = omp_get_wtime() + kLongest_s;
  while (!all_there(count)) {
    if (omp_get_wtime() > end) return 0;
    usleep(500);
  }
  return 1;
}

static void all_met(int count, const char* what) {
  int seen[kMost] = {0}, different = 0;
  for (int i = 0; i < count; ++i)
    if (there[i] > 0 && there[i] <= kMost) seen[there[i] - 1] = 1;
  for (int i = 0; i < kMost; ++i) different += seen[i];
  expect(different == count, what);
  memset(there, 0, sizeof there);
}

static void of_one_member(int members) {
  int met = 0;
#pragma omp parallel
#pragma omp single
  for (int i = 0; i < members; ++i) {
#pragma omp task firstprivate(i) shared(met)
    {
      const int good = meet(i, members);
#pragma omp atomic
      met += good;
    }
  }
  expect(met == members, "tasks of one member");
  all_met(members, "tasks of one member, by different ones");
}

// The others wait at the region's end, not at a barrier; arguments that are large.
static void at_the_end(int members) {
  struct {
    char filler[3000];
    int last;
  } large;
  memset(&large, 1, sizeof large);
  large.last = 77;
  int met = 0;
#pragma omp parallel
  if (omp_get_thread_num() == omp_get_num_threads() - 1)
    for (int i = 0; i < members; ++i) {
      large.filler[0] = (char)i;
#pragma omp task firstprivate(i, large) shared(met)
      {
        int good = meet(i, members) && large.filler[0] == i && large.filler[2999] == 1;
        if (large.last != 77) good = 0;
#pragma omp atomic
        met += good;
      }
    }
  expect(met == members, "tasks at the end of a region");
  all_met(members, "tasks at the end of a region, by different ones");
}

// Inner tasks wait for theirs, and are given away as well: what waits runs only its own
// descendants, so not all of them meet.
static int tree(int first, int count) {
  if (count == 1) {
    usleep(2000);
    return first;
  }
  int left = 0, right = 0;
#pragma omp task shared(left) untied
  left = tree(first, count / 2);
#pragma omp task shared(right)
  right = tree(first + count / 2, count - count / 2);
#pragma omp taskwait
  return left + right;
}

static void of_a_tree(void) {
  int sum = 0;
#pragma omp parallel
#pragma omp single
  sum = tree(0, 50);
  expect(sum == 50 * 49 / 2, "a tree of tasks");
}

// Descendants of tasks that have ended are waited for.
static void descend(int first, int count, int all, int* met) {
  if (count > 1) {
#pragma omp task
    descend(first, count / 2, all, met);
#pragma omp task
    descend(first + count / 2, count - count / 2, all, met);
    return;
  }
  const int good = meet(first, all);
#pragma omp atomic
  *met += good;
}

static void in_a_group(int members) {
  int met = 0;
#pragma omp parallel
#pragma omp single
  {
#pragma omp taskgroup
    {
#pragma omp task
      descend(0, members, members, &met);
    }
    expect(met == members, "taskgroup");
  }
  all_met(members, "taskgroup, by different ones");
}

static void in_a_loop(int members) {
  int met = 0;
#pragma omp parallel
#pragma omp single
#pragma omp taskloop grainsize(1) reduction(+ : met)
  for (int i = 0; i < members; ++i) met += meet(i, members);
  expect(met == members, "taskloop with a reduction");
  all_met(members, "taskloop, by different ones");
}

static void with_reductions(int members) {
  long sum = 0, region = 0;
#pragma omp parallel
#pragma omp single
#pragma omp taskgroup task_reduction(+ : sum)
  for (int i = 0; i < members; ++i) {
#pragma omp task in_reduction(+ : sum) firstprivate(i)
    {
      sum += 10 * meet(i, members);
#pragma omp task in_reduction(+ : sum)
      sum += 1;
    }
  }
  expect(sum == 11L * members, "task_reduction");
  all_met(members, "task_reduction, by different ones");
#pragma omp parallel reduction(task, + : region)
  {
    region += 1;
#pragma omp single nowait
    for (int i = 0; i < members; ++i) {
#pragma omp task in_reduction(+ : region) firstprivate(i)
      region += 10 * meet(i, members);
    }
  }
  expect(region == 11L * members, "reduction(task, ...)");
  all_met(members, "reduction(task, ...), by different ones");
}

// One before all, one behind all.
static void with_dependences(int members) {
  int before = 0, after = 0, value = 0;
  int met[kMost] = {0};
#pragma omp parallel
#pragma omp single
  {
#pragma omp task depend(inout : value) shared(value)
    value += 5;
    for (int i = 0; i < members; ++i) {
#pragma omp task depend(in : value) firstprivate(i) shared(value, met)
      met[i] = value + meet(i, members);
    }
#pragma omp task depend(inout : value) shared(value)
    value *= 2;
#pragma omp task depend(in : value) if (0) shared(value, before)
    before = value;
#pragma omp taskwait depend(in : value)
    after = value;
  }
  for (int i = 0; i < members; ++i) expect(met[i] == 5 + 1, "tasks between two others");
  expect(before == 10 && after == 10, "tasks wait for what they depend on");
  all_met(members, "tasks between two others, by different ones");
}

// Events that are fulfilled by tasks which another member is likely to run.
static void with_events(int members) {
  int done = 0, body = 0;
#pragma omp parallel
#pragma omp single
  {
    omp_event_handle_t event;
#pragma omp task detach(event) depend(out : done) shared(body)
    body = 1;
    for (int i = 0; i < members; ++i) {
#pragma omp task firstprivate(i, event)
      {
        meet(i, members);
        if (i == members - 1) omp_fulfill_event(event);
      }
    }
#pragma omp task depend(in : done) shared(done, body)
    done = body;
#pragma omp taskwait
    expect(done == 1, "what depends on a task with an event");
  }
  all_met(members, "tasks beside one with an event");
}

static void of_several_kinds(int members) {
  int finals = 0, at_once = 0, merged = 0, inside = 0;
#pragma omp parallel
#pragma omp single
  for (int i = 0; i < members; ++i) {
#pragma omp task final(1) shared(finals, inside) firstprivate(i)
    {
      int mine = meet(i, members) && omp_in_final(), child = 0;
#pragma omp task shared(child)
      child = omp_in_final();
#pragma omp atomic
      finals += mine;
#pragma omp atomic
      inside += child;
    }
#pragma omp task if (0) shared(at_once)
    ++at_once;
#pragma omp task mergeable priority(i) shared(merged)
    {
#pragma omp atomic
      ++merged;
    }
  }
  expect(finals == members && inside == members, "final tasks");
  expect(at_once == members && merged == members, "undeferred and mergeable tasks");
  all_met(members, "final tasks, by different ones");
}

// More than anybody gives away; from all members.
static void many(int members) {
  enum { kEach = 300 };
  static int counts[kMost][1024];
  memset(counts, 0, sizeof counts);
#pragma omp parallel
  {
    for (int i = 0; i < kEach; ++i) {
#pragma omp task
      {
#pragma omp atomic
        ++counts[omp_get_thread_num()][0];
      }
    }
#pragma omp barrier
    int sum = 0;
    for (int i = 0; i < members; ++i) sum += counts[i][0];
    expect(sum == kEach * members, "a barrier waits for all members' tasks");
  }
}

static void recursion(void) {
  int found = 0;
#pragma omp parallel
#pragma omp single
  found = fibonacci(16);
  expect(found == 987, "fibonacci");
}

static void cancelled(int members) {
  if (!omp_get_cancellation()) return;
  int ran = 0, told = 0;
#pragma omp parallel
#pragma omp single
#pragma omp taskgroup
  for (int i = 0; i < members + 200; ++i) {
#pragma omp task firstprivate(i) shared(ran, told)
    {
      if (i < members) {
        expect(meet(i, members), "tasks that are cancelled");
        if (i == 0) {
#pragma omp atomic write
          told = 1;
#pragma omp cancel taskgroup
        }
        for (int now = 0; !now;) {
#pragma omp atomic read
          now = told;
        }
        // The cancellation was before `told` for all but the one that cancels.
      }
#pragma omp atomic
      ++ran;
    }
  }
  expect(ran >= members - 1 && ran < members + 200, "cancelled taskgroup");
  memset(there, 0, sizeof there);
}

int main(void) {
  const int members = omp_get_max_threads();
  of_one_member(members);
  at_the_end(members);
  of_a_tree();
  in_a_group(members);
  in_a_loop(members);
  with_reductions(members);
  with_dependences(members);
  with_events(members);
  of_several_kinds(members);
  many(members);
  recursion();
  cancelled(members);
  of_one_member(members);
  printf("%d threads\n", members);
  return result();
}
