// answers.h's calls, made by processes that share the memory: a file of /dev/shm, a System V
// segment, or memory without a name, as the argument says ("file", "segment", "anonymous", or
// "fixed": at an address of the program's choice). Each prints its node and its failures.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "answers.h"

#include <stdatomic.h>
#include <sys/mman.h>

#include "must.h"

enum { kBytes = 2 * 4096 };

static struct shared_page {
  atomic_long come;
  int stop[kWriters * kTurns];
  char array[4096 - 8 - 4 * kWriters * kTurns];
  struct answers answers;
} * shared;
static long rounds;

static void wait_for_all(void) {
  atomic_fetch_add(&shared->come, 1);
  ++rounds;
  while (atomic_load(&shared->come) < rounds * kWriters) usleep(200);
}

static void* memory(const char* kind) {
  if (strcmp(kind, "anonymous") == 0)
    return mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (strcmp(kind, "fixed") == 0) {
    void* reserved = mmap(NULL, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mmap(reserved, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED,
                -1, 0);
  }
  if (strcmp(kind, "segment") == 0) {
    const int id = shmget(IPC_PRIVATE, kBytes, 0600);
    void* at = shmat(id, NULL, 0);
    must(shmctl(id, IPC_RMID, NULL) == 0, "shmctl");
    return at;
  }
  const int file = open("/dev/shm/answers", O_CREAT | O_RDWR, 0600);
  must(file >= 0 && ftruncate(file, kBytes) == 0, "/dev/shm/answers");
  void* at = mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  unlink("/dev/shm/answers");
  return at;
}

static int work(int self) {
  char host[64];
  if (self != 0) open_queue(0);
  take_turns(self, wait_for_all);
  gethostname(host, sizeof host);
  printf("%s %d failures\n", host, failures);
  fflush(stdout);
  return failures > 0;
}

int main(int argc, char** argv) {
  must(argc == 2, "usage: shared_answers KIND");
  shared = memory(argv[1]);
  must(shared != MAP_FAILED, argv[1]);
  page = &shared->answers;
  stop = shared->stop;
  make_all();
  pid_t children[kWriters];
  for (int i = 1; i < kWriters; ++i) {
    children[i] = fork();
    must(children[i] >= 0, "fork");
    if (children[i] == 0) _exit(work(i));
  }
  int failed = work(0), status;
  for (int i = 1; i < kWriters; ++i)
    failed |= waitpid(children[i], &status, 0) != children[i] || status != 0;
  remove_all();
  return failed;
}
