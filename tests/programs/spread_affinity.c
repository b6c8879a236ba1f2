// Threads that bind themselves and each other to processors, by the numbers that the program sees.
// Arguments are shell commands that run when each has bound itself to one of its own, and when the
// first one has bound them otherwise. "made bound": one thread, which is bound when it is made, the
// process being spread meanwhile.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kMost = 64 };
static int processors, failures;
static pthread_barrier_t turn;
static pid_t tids[kMost];

static void expect(int good, const char* what, int which) {
  if (good) return;
  printf("%s: %d (%s)\n", what, which, strerror(errno));
  __atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
}

static cpu_set_t one(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  return set;
}

static int is_bound_to(pid_t tid, cpu_set_t wanted) {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(tid, sizeof set, &set) == 0 && CPU_EQUAL(&set, &wanted);
}

// The kernel of its node has it on one processor.
static int stays(void) {
  const int first = sched_getcpu();
  for (int i = 0; i < 50; ++i) {
    sched_yield();
    if (sched_getcpu() != first) return 0;
  }
  return 1;
}

static void* work(void* argument) {
  const int number = (int)(long)argument;
  const cpu_set_t own = one(number);
  tids[number] = gettid();
  expect(sched_setaffinity(0, sizeof own, &own) == 0, "binds itself", number);
  expect(is_bound_to(0, own), "is bound by itself", number);
  pthread_barrier_wait(&turn);
  expect(stays(), "stays on a processor", number);
  pthread_barrier_wait(&turn);
  // The first thread binds it meanwhile.
  pthread_barrier_wait(&turn);
  expect(is_bound_to(0, one(processors - 1 - number)), "is bound by another", number);
  expect(stays(), "stays on another processor", number);
  cpu_set_t all;
  CPU_ZERO(&all);
  for (int i = 0; i < processors; ++i) CPU_SET(i, &all);
  expect(sched_setaffinity(0, sizeof all, &all) == 0 && is_bound_to(0, all), "goes free", number);
  return NULL;
}

static void* look(void* unused) {
  (void)unused;
  expect(is_bound_to(0, one(processors - 1)), "is made bound", processors - 1);
  return NULL;
}

static int make_bound(void) {
  const cpu_set_t last = one(processors - 1);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setaffinity_np(&attributes, sizeof last, &last);
  pthread_t thread;
  errno = pthread_create(&thread, &attributes, look, NULL);
  expect(errno == 0, "is made", processors - 1);
  if (errno == 0) pthread_join(thread, NULL);
  return failures != 0;
}

int main(int count, char** arguments) {
  cpu_set_t all;
  CPU_ZERO(&all);
  sched_getaffinity(0, sizeof all, &all);
  processors = CPU_COUNT(&all);
  if (processors > kMost) return 2;
  if (count > 1 && strcmp(arguments[1], "made bound") == 0) return make_bound();
  pthread_barrier_init(&turn, NULL, (unsigned)processors + 1);
  pthread_t threads[kMost];
  for (long i = 0; i < processors; ++i) pthread_create(&threads[i], NULL, work, (void*)i);
  pthread_barrier_wait(&turn);
  if (count > 1) expect(system(arguments[1]) == 0, "command", 1);
  for (int i = 0; i < processors; ++i) expect(is_bound_to(tids[i], one(i)), "is seen bound", i);
  pthread_barrier_wait(&turn);
  for (int i = 0; i < processors; ++i) {
    const cpu_set_t other = one(processors - 1 - i);
    expect(pthread_setaffinity_np(threads[i], sizeof other, &other) == 0, "binds another", i);
    expect(is_bound_to(tids[i], other), "is seen bound elsewhere", i);
  }
  if (count > 2) expect(system(arguments[2]) == 0, "command", 2);
  const cpu_set_t none = one(processors);
  expect(sched_setaffinity(0, sizeof none, &none) == -1 && errno == EINVAL, "no such processor", 0);
  expect(sched_setaffinity(0, sizeof none, NULL) == -1 && errno == EFAULT, "no memory", 0);
  pthread_barrier_wait(&turn);
  for (int i = 0; i < processors; ++i) pthread_join(threads[i], NULL);
  printf("%d processors\n", processors);
  return failures != 0;
}
