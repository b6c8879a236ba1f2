// A team and signals. "caught": signals arrive while members wait for each other; "hold": members
// wait until a signal ends the process; "shared": memory that keeps the process on one node.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <omp.h>

#include "expect.h"

static volatile sig_atomic_t caught;

static void count_signal(int signal) {
  (void)signal;
  ++caught;
}

static void work(void) {
  long sum = 0;
#pragma omp parallel reduction(+ : sum)
  for (int i = 0; i < 150; ++i) {
#pragma omp for schedule(dynamic, 2)
    for (int j = 0; j < 16; ++j) ++sum;
#pragma omp critical
    ++sum;
  }
  expect(sum == 150 * (16 + omp_get_max_threads()), "sum");
}

int main(int count, char** arguments) {
  const char* what = count > 1 ? arguments[1] : "";
  if (strcmp(what, "hold") == 0) {
#pragma omp parallel
    {
      if (omp_get_thread_num() == 0) {
        puts("held");
        fflush(stdout);
      }
      while (omp_get_thread_num() == 1) pause();
#pragma omp barrier
    }
  } else if (strcmp(what, "caught") == 0) {
    const struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};
    const struct itimerval often = {{0, 10000}, {0, 10000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 100 && caught < 5; ++i) work();
    expect(caught >= 5, "caught");
  } else {
    char* shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    expect(shared != MAP_FAILED, "shared memory");
    work();
  }
  return result();
}
