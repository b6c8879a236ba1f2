// answers.h's calls, made by threads of one process. SPDX-License-Identifier: GPL-2.0-or-later
#include "answers.h"

#include <pthread.h>

static struct answers the_page __attribute__((aligned(4096)));
static int turns[kWriters * kTurns] __attribute__((aligned(4096)));
static pthread_barrier_t turn;

static void wait_for_all(void) {
  pthread_barrier_wait(&turn);
}

static void* work(void* argument) {
  take_turns((int)(long)argument, wait_for_all);
  return NULL;
}

int main(void) {
  pthread_t threads[kWriters];
  page = &the_page;
  stop = turns;
  pthread_barrier_init(&turn, NULL, kWriters);
  make_all();
  for (long i = 1; i < kWriters; ++i) pthread_create(&threads[i], NULL, work, (void*)i);
  work(NULL);
  for (int i = 1; i < kWriters; ++i) pthread_join(threads[i], NULL);
  remove_all();
  printf("%d failures\n", failures);
  return failures > 0;
}
