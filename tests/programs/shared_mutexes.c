// Processes on several nodes that a mutex, a condition and a barrier in shared memory order:
//   shared_mutexes KIND PLACE ROUNDS FORK
// KIND: "plain", "robust", "priority" (inheritance) or "priority-robust". PLACE, of the memory:
// "kernel" (which chooses it), "hint", "fixed" (over a reservation), or "segment" (shmat at an
// address). Each counts under the mutex, then all take turns by the condition; with a robust one,
// all but the first then end as its owners, one after the other. FORK: "fork" or "clone3" (where
// that is not refused). Prints the hosts. SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "must.h"

enum { kWorkers = 4, kBytes = 1 << 20, kTurns = 20 };

static struct shared {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  pthread_barrier_t barrier;
  long counted, turn, inherited;
  char hosts[kWorkers][64];
  char other_pages[4096];
  struct rusage used;  // not at this node when it is waited for
} * shared;

static void* memory(const char* place) {
  const int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
  if (strcmp(place, "kernel") == 0) return mmap(NULL, kBytes, protection, flags, -1, 0);
  if (strcmp(place, "hint") == 0)
    return mmap((void*)0x100000000000, kBytes, protection, flags, -1, 0);
  char* reserved = mmap(NULL, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  must(reserved != MAP_FAILED, "reservation");
  if (strcmp(place, "fixed") == 0)
    return mmap(reserved, kBytes, protection, flags | MAP_FIXED, -1, 0);
  munmap(reserved, kBytes);
  const int id = shmget(IPC_PRIVATE, kBytes, 0600);
  void* at = shmat(id, reserved, 0);
  must(shmctl(id, IPC_RMID, NULL) == 0 && at == reserved, "segment");
  return at;
}

static void make(const char* kind) {
  pthread_mutexattr_t of_mutex;
  pthread_mutexattr_init(&of_mutex);
  pthread_mutexattr_setpshared(&of_mutex, PTHREAD_PROCESS_SHARED);
  if (strstr(kind, "robust")) pthread_mutexattr_setrobust(&of_mutex, PTHREAD_MUTEX_ROBUST);
  if (strstr(kind, "priority")) pthread_mutexattr_setprotocol(&of_mutex, PTHREAD_PRIO_INHERIT);
  must(pthread_mutex_init(&shared->mutex, &of_mutex) == 0, "mutex");
  pthread_condattr_t of_condition;
  pthread_condattr_init(&of_condition);
  pthread_condattr_setpshared(&of_condition, PTHREAD_PROCESS_SHARED);
  pthread_cond_init(&shared->changed, &of_condition);
  pthread_barrierattr_t of_barrier;
  pthread_barrierattr_init(&of_barrier);
  pthread_barrierattr_setpshared(&of_barrier, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&shared->barrier, &of_barrier, kWorkers);
}

static void lock(void) {
  const int error = pthread_mutex_lock(&shared->mutex);
  if (error == EOWNERDEAD) {
    ++shared->inherited;
    must(pthread_mutex_consistent(&shared->mutex) == 0, "consistent");
  } else if (error != 0) {
    errno = error;
    must(0, "lock");
  }
}

static void unlock(void) {
  errno = pthread_mutex_unlock(&shared->mutex);
  must(errno == 0, "unlock");
}

static void work(int self, long rounds, int dies) {
  gethostname(shared->hosts[self], sizeof shared->hosts[self] - 1);
  pthread_barrier_wait(&shared->barrier);
  for (long i = 0; i < rounds; ++i) {
    lock();
    ++shared->counted;
    unlock();
  }
  lock();
  for (int i = 0; i < kTurns; ++i) {
    while (shared->turn % kWorkers != self) {
      const int error = pthread_cond_wait(&shared->changed, &shared->mutex);
      must(error == 0, "wait");
    }
    ++shared->turn;
    pthread_cond_broadcast(&shared->changed);
  }
  unlock();
  pthread_barrier_wait(&shared->barrier);
  if (!dies) return;
  lock();
  usleep(20000);
  _exit(0);  // one after the other
}

static pid_t child(const char* how) {
  if (strcmp(how, "fork") == 0) return fork();
  struct clone_args arguments = {.exit_signal = SIGCHLD};
  const pid_t made = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
  return made < 0 && errno == ENOSYS ? fork() : made;
}

int main(int argc, char** argv) {
  must(argc == 5, "usage: shared_mutexes KIND PLACE ROUNDS FORK");
  const long rounds = atol(argv[3]);
  const int dies = strstr(argv[1], "robust") != NULL;
  shared = memory(argv[2]);
  must(shared != MAP_FAILED, argv[2]);
  make(argv[1]);
  for (int i = 1; i < kWorkers; ++i) {
    const pid_t pid = child(argv[4]);
    must(pid >= 0, "fork");
    if (pid > 0) continue;
    work(i, rounds, dies);
    _exit(0);
  }
  work(0, rounds, 0);
  for (int i = 1; i < kWorkers; ++i) {
    int status = 0;
    must(wait4(-1, &status, 0, &shared->used) > 0 && status == 0, "a child failed");
  }
  lock();
  unlock();
  must(shared->counted == kWorkers * rounds, "counts are lost");
  must(shared->turn == kWorkers * kTurns, "turns are lost");
  must(!dies || shared->inherited == kWorkers - 1, "who inherited the mutex");
  for (int i = 0; i < kWorkers; ++i) puts(shared->hosts[i]);
  return 0;
}
