// For a debugger: three threads compute until there is a file "end"; the first one forks children
// meanwhile, which call the same function.
//   spread_breakpoints         prints its pid and the threads' numbers, and at its end whether each
//                              has computed
//   spread_breakpoints alone   without children
// SPDX-License-Identifier: GPL-2.0-or-later
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kThreads = 3 };

static __thread long own;
static volatile long turns[kThreads];
static volatile int over, seen;
static pid_t tids[kThreads];
static pthread_barrier_t begun;

__attribute__((noinline)) static long add_one(long number) {
  const long next = number + 1;
  own += 2;
  seen = 1;
  return next;
}

static void* compute(void* argument) {
  const long self = (long)argument;
  tids[self] = (pid_t)syscall(SYS_gettid);
  own = 1000000 * (self + 1);
  pthread_barrier_wait(&begun);
  while (!over) {
    turns[self] = add_one(turns[self]);
    usleep(1000);
  }
  return NULL;
}

int main(int argc, char** argv) {
  const int is_alone = argc == 2 && strcmp(argv[1], "alone") == 0;
  pthread_t threads[kThreads];
  pthread_barrier_init(&begun, NULL, kThreads + 1);
  for (long i = 0; i < kThreads; ++i) pthread_create(&threads[i], NULL, compute, (void*)i);
  pthread_barrier_wait(&begun);
  printf("%d %d %d %d\n", getpid(), tids[0], tids[1], tids[2]);
  fflush(stdout);
  while (access("end", F_OK) != 0) {
    usleep(200000);
    if (is_alone) continue;
    const pid_t child = fork();
    if (child == 0) _exit(add_one(6) == 7 ? 0 : 1);
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
      printf("a child ended with %#x\n", (unsigned)status);
      return 1;
    }
  }
  over = 1;
  for (int i = 0; i < kThreads; ++i) pthread_join(threads[i], NULL);
  printf("%d\n", turns[0] > 0 && turns[1] > 0 && turns[2] > 0);
  return 0;
}
