/* Mutexes, robust ones too, conditions, barriers and semaphores in POSIX shared memory work between
 * parent and children. SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <time.h>

enum { kChildren = 2, kTurns = 100 };

struct shared {
  pthread_mutex_t mutex, robust;
  pthread_cond_t changed;
  pthread_barrier_t barrier;
  sem_t semaphore;
  int count;
};

static struct shared* map(const char* name, int flags) {
  const int fd = shm_open(name, O_RDWR | flags, 0600);
  if (fd < 0) fail("shm_open");
  if (ftruncate(fd, 8192) != 0) fail("ftruncate");
  struct shared* shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared == MAP_FAILED) fail("mmap");
  close(fd);
  return shared;
}

static void take_turns(struct shared* shared, int mine) {
  pthread_barrier_wait(&shared->barrier);
  for (int i = 0; i < kTurns; ++i) {
    pthread_mutex_lock(&shared->mutex);
    while (shared->count % (kChildren + 1) != mine)
      pthread_cond_wait(&shared->changed, &shared->mutex);
    ++shared->count;
    pthread_cond_broadcast(&shared->changed);
    pthread_mutex_unlock(&shared->mutex);
  }
}

static void on_signal(int signal) {
  (void)signal;
}

__attribute__((noreturn)) static void child(int mine) {
  struct shared* shared = map("/krg-shared-locks", 0);
  take_turns(shared, mine);
  sem_post(&shared->semaphore);
  if (mine == 1) {
    wait_for_order();
    pthread_mutex_lock(&shared->mutex);
    say("has it");
    wait_for_order();
    pthread_mutex_lock(&shared->robust);
    pthread_mutex_unlock(&shared->mutex);
    say("has the other");
    for (;;) pause();
  }
  wait_for_order();
  struct timespec soon;
  clock_gettime(CLOCK_REALTIME, &soon);
  soon.tv_sec += 1;
  say("in time: %s", strerror(pthread_mutex_timedlock(&shared->mutex, &soon)));
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGUSR1, &action, NULL);
  say("waits");
  const int result = sem_wait(&shared->semaphore);
  const int reason = errno;
  signal(SIGUSR1, SIG_IGN);
  say("interrupted: %s", result < 0 ? strerror(reason) : "done");
  say("waits");
  say("locked: %s", strerror(pthread_mutex_lock(&shared->mutex)));
  say("locked: %s", strerror(pthread_mutex_lock(&shared->robust)));
  say("mended: %s", strerror(pthread_mutex_consistent(&shared->robust)));
  pthread_mutex_unlock(&shared->robust);
  say("locked: %s", strerror(pthread_mutex_lock(&shared->robust)));
  exit(0);
}

static struct shared* make(void) {
  struct shared* shared = map("/krg-shared-locks", O_CREAT | O_EXCL);
  pthread_mutexattr_t mutex;
  pthread_mutexattr_init(&mutex);
  pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&shared->mutex, &mutex);
  pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&shared->robust, &mutex);
  pthread_condattr_t condition;
  pthread_condattr_init(&condition);
  pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED);
  pthread_cond_init(&shared->changed, &condition);
  pthread_barrierattr_t barrier;
  pthread_barrierattr_init(&barrier);
  pthread_barrierattr_setpshared(&barrier, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&shared->barrier, &barrier, kChildren + 1);
  sem_init(&shared->semaphore, 1, 0);
  return shared;
}

int main(int argc, char** argv) {
  const char* role = begin(argc, argv);
  if (role) child(role[0] - '0');
  struct shared* shared = make();
  struct child owner = start_child("1", -1), waiter = start_child("2", -1);
  take_turns(shared, 0);
  for (int i = 0; i < kChildren; ++i) sem_wait(&shared->semaphore);
  printf("count %d\n", shared->count);
  order(&owner);
  puts(heard(&owner));
  order(&waiter);
  puts(heard(&waiter));
  puts(heard(&waiter));
  struct timespec pause = {0, 100000000};
  do {
    kill(waiter.pid, SIGUSR1);
  } while (!can_hear(&waiter));
  puts(heard(&waiter));
  puts(heard(&waiter));
  nanosleep(&pause, NULL);
  order(&owner);
  puts(heard(&owner));
  puts(heard(&waiter));
  nanosleep(&pause, NULL);
  kill(owner.pid, SIGKILL);
  wait_and_print("owner", owner.pid, 0);
  for (int i = 0; i < 3; ++i) puts(heard(&waiter));
  wait_and_print("waiter", waiter.pid, 0);
  shm_unlink("/krg-shared-locks");
  return 0;
}
