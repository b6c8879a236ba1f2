// Where the members of a team are bound: each tells its place, the processors that it may use, as
// the program sees them, and the one that it is on, as the kernel of its node numbers them. An
// argument is a shell command that runs while the team is in its last region.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "expect.h"

enum { kMost = 64, kLooks = 50 };

struct Seen {
  long tid;
  int place, partition, first;
  int processor;  // -1: several
  cpu_set_t allowed;
};
static struct Seen seen[kMost];

static int processor_here(void) {
  const int first = sched_getcpu();
  for (int i = 0; i < kLooks; ++i) {
    sched_yield();
    if (sched_getcpu() != first) return -1;
  }
  return first;
}

static void look(void) {
  struct Seen* mine = &seen[omp_get_thread_num()];
  int places[1024];
  mine->place = omp_get_place_num();
  mine->partition = omp_get_partition_num_places();
  omp_get_partition_place_nums(places);
  mine->first = mine->partition > 0 ? places[0] : -1;
#pragma omp barrier  // it is where it is to be
  mine->tid = syscall(SYS_gettid);
  cpu_set_t allowed;  // not where other nodes write: krgd's answer gives a page up after some tries
  CPU_ZERO(&allowed);
  expect(sched_getaffinity(0, sizeof allowed, &allowed) == 0, "sched_getaffinity");
  mine->allowed = allowed;
  mine->processor = processor_here();
}

static void show(const char* region, int members) {
  for (int i = 0; i < members; ++i) {
    printf("%s %d tid %ld place %d partition %d+%d processor %d allowed", region, i, seen[i].tid,
           seen[i].place, seen[i].first, seen[i].partition, seen[i].processor);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &seen[i].allowed)) printf(" %d", cpu);
    printf("\n");
  }
}

int main(int count, char** arguments) {
  const int members = omp_get_max_threads();
  const int places = omp_get_num_places();
  printf("processors %d places %d\n", omp_get_num_procs(), places);
  for (int i = 0; i < places; ++i) {
    int processors[CPU_SETSIZE];
    omp_get_place_proc_ids(i, processors);
    printf("place %d:", i);
    for (int j = 0; j < omp_get_place_num_procs(i); ++j) printf(" %d", processors[j]);
    printf("\n");
  }
  for (int i = 0; i < 3; ++i)
#pragma omp parallel
    look();
  show("default", members);
#pragma omp parallel proc_bind(spread)
  look();
  show("spread", members);
#pragma omp parallel proc_bind(close)
  look();
  show("close", members);
#pragma omp parallel proc_bind(primary)
  look();
  show("primary", members);
#pragma omp parallel num_threads(members > 1 ? members - 1 : 1)
  look();
  show("fewer", members > 1 ? members - 1 : 1);
  fflush(stdout);
#pragma omp parallel
  {
    look();
#pragma omp barrier
#pragma omp master
    if (count > 1) expect(system(arguments[1]) == 0, "command");
  }
  show("last", members);
  return result();
}
