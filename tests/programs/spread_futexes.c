// Threads that wait for words: time limits, signals, wakes of several and of none, requeues. What
// is printed does not depend on who ran where. SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { kWaiters = 4 };

static long futex(_Atomic unsigned* word, int operation, unsigned value, long value2,
                  _Atomic unsigned* word2, unsigned value3) {
  return syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, value2, word2, value3);
}

static struct timespec in_ms(clockid_t clock, long ms) {
  struct timespec at;
  clock_gettime(clock, &at);
  at.tv_nsec += ms * 1000000;
  at.tv_sec += at.tv_nsec / 1000000000;
  at.tv_nsec %= 1000000000;
  return at;
}

static sem_t semaphore, posted;
static _Atomic unsigned a, b;
static _Atomic int woken, ready;

static void* wait_for_time(void* argument) {
  struct timespec limit = in_ms(CLOCK_REALTIME, 30);
  int result = sem_timedwait(&semaphore, &limit);
  printf("semaphore: %d %d\n", result, errno == ETIMEDOUT);
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t never = PTHREAD_COND_INITIALIZER;
  pthread_mutex_lock(&mutex);
  limit = in_ms(CLOCK_REALTIME, 30);
  result = pthread_cond_timedwait(&never, &mutex, &limit);
  printf("condition: %d\n", result == ETIMEDOUT);
  const struct timespec soon = {0, 20000000}, wrong = {0, -1};
  result = (int)futex(&a, FUTEX_WAIT, 0, (long)&soon, NULL, 0);
  printf("relative: %d %d\n", result, errno == ETIMEDOUT);
  result = (int)futex(&a, FUTEX_WAIT, 1, 0, NULL, 0);
  printf("other value: %d %d\n", result, errno == EAGAIN);
  result = (int)futex(&a, FUTEX_WAIT, 0, (long)&wrong, NULL, 0);
  printf("wrong limit: %d %d\n", result, errno == EINVAL);
  printf("wake of none: %ld\n", futex(&a, FUTEX_WAKE, 10, 0, NULL, 0));
  limit = in_ms(CLOCK_REALTIME, 60000);
  sem_post(&posted);
  result = sem_timedwait(&semaphore, &limit);
  printf("in time: %d\n", result);
  return argument;
}

static _Atomic int handled;
static void handler(int signal) {
  handled = signal;
}

static void* wait_for_signal(void* argument) {
  sem_post(&posted);
  const int result = sem_wait(&semaphore);
  printf("interrupted: %d %d, handled %d\n", result, result ? errno == EINTR : 0, handled != 0);
  return argument;
}

static void send_signal(int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  sigaction(SIGUSR1, &action, NULL);
  handled = 0;
  pthread_t thread;
  if (pthread_create(&thread, NULL, wait_for_signal, NULL) != 0) abort();
  sem_wait(&posted);
  usleep(100000);
  pthread_kill(thread, SIGUSR1);
  while (!handled) usleep(1000);
  usleep(20000);
  if (flags & SA_RESTART) sem_post(&semaphore);
  pthread_join(thread, NULL);
}

// A wake-up may be for nothing: the word decides.
static void* wait_for_word(void* argument) {
  ++ready;
  while (a == 0) futex(&a, FUTEX_WAIT, 0, 0, NULL, 0);
  ++woken;
  return argument;
}

// Moves waiters to a second word, wakes one by a changed third.
static void requeue(void) {
  pthread_t threads[kWaiters];
  for (int i = 0; i < kWaiters; i++)
    if (pthread_create(&threads[i], NULL, wait_for_word, NULL) != 0) abort();
  while (ready < kWaiters) usleep(1000);
  usleep(200000);
  long result = futex(&a, FUTEX_CMP_REQUEUE, 1, 10, &b, 7);
  printf("requeue, other value: %ld %d\n", result, errno == EAGAIN);
  a = 1;
  result = futex(&a, FUTEX_CMP_REQUEUE, 1, 10, &b, 1);
  printf("requeue: %ld, ", result);
  printf("left: %ld\n", futex(&a, FUTEX_WAKE, 10, 0, NULL, 0));
  // b |= 4, and wakes one of its waiters because it was less than 4.
  const unsigned change = FUTEX_OP(FUTEX_OP_OR, 4, FUTEX_OP_CMP_LT, 4);
  result = futex(&a, FUTEX_WAKE_OP, 1, 1, &b, change);
  printf("wake by change: %ld, %u\n", result, b);
  result = futex(&a, FUTEX_WAKE_OP, 1, 1, &b, change);
  printf("no wake: %ld, %u\n", result, b);
  printf("others: %ld\n", futex(&b, FUTEX_WAKE, 10, 0, NULL, 0));
  for (int i = 0; i < kWaiters; i++) pthread_join(threads[i], NULL);
  printf("woken %d\n", woken);
}

static pthread_mutex_t robust[2];
static void* keep_locks(void* argument) {
  for (int i = 0; i < 2; i++) pthread_mutex_lock(&robust[i]);
  sem_post(&posted);
  usleep(100000);
  return argument;
}
// A thread ends that has two locks: one is waited for by then.
static void outlive_owner(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  for (int i = 0; i < 2; i++) pthread_mutex_init(&robust[i], &attributes);
  pthread_t thread;
  if (pthread_create(&thread, NULL, keep_locks, NULL) != 0) abort();
  sem_wait(&posted);
  for (int i = 0; i < 2; i++) {
    const int result = pthread_mutex_lock(&robust[i]);
    printf("owner died: %d, ", result == EOWNERDEAD);
    printf("consistent: %d, ", pthread_mutex_consistent(&robust[i]));
    printf("unlocked: %d\n", pthread_mutex_unlock(&robust[i]));
  }
  pthread_join(thread, NULL);
}

// A wait for several words: of memory that threads elsewhere may wake it in, or refused.
static _Atomic unsigned words[2];
static _Atomic int has_ended;

static void* wake_one_of_two(void* argument) {
  while (!has_ended) {
    futex(&words[1], FUTEX_WAKE, 1, 0, NULL, 0);
    usleep(1000);
  }
  return argument;
}

static void wait_for_any(void) {
  struct futex_waitv both[2] = {{0}};
  for (int i = 0; i < 2; ++i) {
    both[i].uaddr = (uintptr_t)&words[i];
    both[i].flags = FUTEX_32 | FUTEX_PRIVATE_FLAG;
  }
  pthread_t thread;
  pthread_create(&thread, NULL, wake_one_of_two, NULL);
  const long result = syscall(SYS_futex_waitv, both, 2, 0, NULL, 0);
  if (result < 0 && errno != ENOSYS) printf("futex_waitv: %s\n", strerror(errno));
  has_ended = 1;
  pthread_join(thread, NULL);
  printf("no longer waits for any\n");
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  sem_init(&semaphore, 0, 0);
  sem_init(&posted, 0, 0);
  pthread_t thread;
  if (pthread_create(&thread, NULL, wait_for_time, NULL) != 0) abort();
  sem_wait(&posted);
  usleep(50000);
  sem_post(&semaphore);
  pthread_join(thread, NULL);
  send_signal(0);
  send_signal(SA_RESTART);
  requeue();
  outlive_owner();
  wait_for_any();
  return 0;
}
