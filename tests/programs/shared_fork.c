// What forks' children share by an anonymous mapping, on whatever nodes they run: counters under a
// lock of processes, a plain atomic, a condition, and pages that each child fills and another one
// reads. Prints the nodes' names. SPDX-License-Identifier: GPL-2.0-or-later
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kPage = 4096, kPagesEach = 64 };

struct shared {
  pthread_mutex_t lock;
  pthread_cond_t all_here;
  int here;
  long under_lock;
  atomic_long added;
  char hosts[64][32];
  unsigned char pages[][kPage];
};

static void check(int fine, const char* what) {
  if (fine) return;
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void child(struct shared* shared, int mine, int children, long rounds) {
  gethostname(shared->hosts[mine], sizeof shared->hosts[mine] - 1);
  for (int i = 0; i < kPagesEach; i++)
    memset(shared->pages[mine * kPagesEach + i], mine + i + 1, kPage);
  check(pthread_mutex_lock(&shared->lock) == 0, "lock");
  shared->here++;
  pthread_cond_broadcast(&shared->all_here);
  while (shared->here < children)
    check(pthread_cond_wait(&shared->all_here, &shared->lock) == 0, "wait");
  pthread_mutex_unlock(&shared->lock);
  const int other = (mine + 1) % children;
  for (int i = 0; i < kPagesEach; i++)
    for (int at = 0; at < kPage; at += 512)
      check(shared->pages[other * kPagesEach + i][at] == (unsigned char)(other + i + 1),
            "what another child wrote");
  for (long i = 0; i < rounds; i++) {
    atomic_fetch_add(&shared->added, 1);
    if (i % 16 != 0) continue;
    pthread_mutex_lock(&shared->lock);
    shared->under_lock++;
    pthread_mutex_unlock(&shared->lock);
  }
}

int main(int argc, char** argv) {
  check(argc == 3, "usage: shared_fork CHILDREN ROUNDS");
  const int children = atoi(argv[1]);
  const long rounds = atol(argv[2]);
  check(children > 0 && children <= 64, "children");
  const size_t bytes = sizeof(struct shared) + (size_t)children * kPagesEach * kPage;
  struct shared* shared =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  check(shared != MAP_FAILED, "mmap");
  pthread_mutexattr_t of_lock;
  pthread_mutexattr_init(&of_lock);
  pthread_mutexattr_setpshared(&of_lock, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&shared->lock, &of_lock);
  pthread_condattr_t of_condition;
  pthread_condattr_init(&of_condition);
  pthread_condattr_setpshared(&of_condition, PTHREAD_PROCESS_SHARED);
  pthread_cond_init(&shared->all_here, &of_condition);
  for (int i = 0; i < children; i++) {
    const pid_t pid = fork();
    check(pid >= 0, "fork");
    if (pid > 0) continue;
    child(shared, i, children, rounds);
    _exit(0);
  }
  for (int i = 0; i < children; i++) {
    int status = 0;
    check(wait(&status) > 0 && status == 0, "a child failed");
  }
  check(shared->added == children * rounds, "additions are lost");
  check(shared->under_lock == children * ((rounds + 15) / 16), "additions under the lock are lost");
  for (int i = 0; i < children; i++) puts(shared->hosts[i]);
  return 0;
}
