// What a spread process pays, in µs, medians: system calls of the main thread (at home) and of
// another one (elsewhere, under krgrun), futexes, a barrier of the two, memory that goes to and
// fro.
//   krgrun -N 2 --caps=+DISTANT_THREAD spread_cost; natively for comparison
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "median.h"

enum { kRounds = 2000, kFewRounds = 300, kPages = 1000, kPageBytes = 4096, kScanned = 16384 };

static double took[kRounds];

static void report(const char* what, int rounds) {
  sort_doubles(took, (size_t)rounds);
  printf("%-14s %10.2f %10.2f\n", what, took[rounds / 2], took[rounds * 9 / 10]);
  fflush(stdout);
}

// --- system calls of one thread -----------------------------------------------------------------

static int unused_word;

static void call_none(void) {
  (void)fcntl(0, F_GETFD);
}
static void call_gettid(void) {
  (void)syscall(SYS_gettid);
}
static void call_wake(void) {
  (void)syscall(SYS_futex, &unused_word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
static void call_map(void) {
  void* mapped = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(mapped, 1 << 16);
}

static void time_calls(const char* what, void (*call)(void), int rounds) {
  for (int i = 0; i < rounds; i++) {
    const double before = now_us();
    call();
    took[i] = now_us() - before;
  }
  report(what, rounds);
}

// --- both threads -------------------------------------------------------------------------------

static pthread_barrier_t barrier;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn;
static _Atomic int flag __attribute__((aligned(4096)));
static char* memory;

static void take_turns(int self) {
  for (int i = 0; i < kFewRounds; i++) {
    const double before = now_us();
    pthread_mutex_lock(&mutex);
    while (turn != self) pthread_cond_wait(&changed, &mutex);
    turn = !self;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&mutex);
    if (self == 0) took[i] = now_us() - before;
  }
  if (self == 0) report("handoff", kFewRounds);
}

static void meet(int self) {
  for (int i = 0; i < kFewRounds; i++) {
    const double before = now_us();
    pthread_barrier_wait(&barrier);
    if (self == 0) took[i] = now_us() - before;
  }
  if (self == 0) report("barrier", kFewRounds);
}

// A flag that both spin on: two page transfers a round.
static void spin(int self) {
  for (int i = 0; i < kFewRounds; i++) {
    const double before = now_us();
    if (self == 0) flag = 2 * i + 1;
    while (flag != 2 * i + 1 + !self) {
      if (self == 1 && flag == 2 * i + 1) break;
    }
    if (self == 1) flag = 2 * i + 2;
    if (self == 0) took[i] = (now_us() - before) / 2;
  }
  if (self == 0) report("spin turn", kFewRounds);
}

static unsigned next_page(unsigned page) {
  return (page * 5 + 7) % 1024;
}

static void touch(int self, int write) {
  unsigned page = 0;
  int touched = 0;
  if (self == 0)
    for (int i = 0; i < 1024; i++) memory[(size_t)i * kPageBytes] = (char)i;
  pthread_barrier_wait(&barrier);
  if (self == 1) {
    for (int i = 0; i < 1024; i++, page = next_page(page)) {
      const double before = now_us();
      volatile char* at = &memory[(size_t)page * kPageBytes];
      if (write)
        *at = 1;
      else
        (void)*at;
      took[touched++] = now_us() - before;
    }
    report(write ? "write fault" : "read fault", touched);
  }
  pthread_barrier_wait(&barrier);
}

static void scan(int self) {
  if (self == 0)
    for (size_t i = 0; i < kScanned; i++) memory[i * kPageBytes] = 1;
  pthread_barrier_wait(&barrier);
  if (self == 1) {
    long sum = 0;
    const double before = now_us();
    for (size_t i = 0; i < kScanned; i++) sum += *(volatile char*)&memory[i * kPageBytes];
    took[0] = (now_us() - before) / kScanned;
    if (sum != kScanned) abort();
    report("page in scan", 1);
  }
  pthread_barrier_wait(&barrier);
}

static void both(int self) {
  meet(self);
  take_turns(self);
  pthread_barrier_wait(&barrier);
  spin(self);
  pthread_barrier_wait(&barrier);
  touch(self, 0);
  touch(self, 1);
  scan(self);
}

static void* other(void* argument) {
  pthread_barrier_wait(&barrier);
  time_calls("away: call", call_none, kRounds);
  time_calls("away: gettid", call_gettid, kRounds);
  time_calls("away: wake", call_wake, kRounds);
  time_calls("away: map", call_map, kFewRounds);
  pthread_barrier_wait(&barrier);
  both(1);
  return argument;
}

int main(void) {
  memory = mmap(NULL, (size_t)kScanned * kPageBytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pthread_barrier_init(&barrier, NULL, 2);
  pthread_t thread;
  const double before = now_us();
  if (memory == MAP_FAILED || pthread_create(&thread, NULL, other, NULL) != 0) return 1;
  pthread_barrier_wait(&barrier);
  took[0] = now_us() - before;
  printf("%-14s %10s %10s\n", "us", "median", "90 %");
  report("first thread", 1);
  pthread_barrier_wait(&barrier);
  time_calls("home: call", call_none, kRounds);
  time_calls("home: wake", call_wake, kRounds);
  time_calls("home: map", call_map, kFewRounds);
  both(0);
  pthread_join(thread, NULL);
  return 0;
}
