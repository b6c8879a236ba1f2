// A process maps memory that it shares with others after its threads have gone to several nodes:
// what is printed is the same everywhere.
//   spread_shared
//     its threads take turns: each opens a file of /dev/shm, a named semaphore and a System V
//     segment, and maps them, where others then read and write them; so do a child and another
//     program (spread_shared NAME ID)
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <spawn.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "must.h"

enum { kThreads = 4, kPage = 4096, kBytes = 3 * kPage, kOften = 50 };

extern char** environ;
static const char* program;
static char name[64];
static pthread_barrier_t barrier;
static char* private_page;  // that a mapping takes the place of

static void all_come(void) {
  pthread_barrier_wait(&barrier);
}

static int ended(pid_t child) {
  int status = 0;
  must(waitpid(child, &status, 0) == child, "waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static _Atomic int* map_file(const char* file, void* at, int flags) {
  const int fd = shm_open(file, O_RDWR, 0600);
  must(fd >= 0, "shm_open");
  void* memory = mmap(at, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);
  must(memory != MAP_FAILED, "mmap of a file of /dev/shm");
  close(fd);
  return memory;
}

// Another program: adds one to the words of both.
static int add_one(const char* file, int id) {
  _Atomic int* word = map_file(file, NULL, 0);
  _Atomic int* segment = shmat(id, NULL, 0);
  must(segment != (void*)-1, "shmat");
  ++word[kPage / sizeof *word];
  ++segment[0];
  return 0;
}

static int run_another(const char* file, int id) {
  char number[16];
  snprintf(number, sizeof number, "%d", id);
  char* arguments[] = {(char*)program, (char*)file, number, NULL};
  pid_t child = 0;
  must(posix_spawn(&child, program, NULL, NULL, arguments, environ) == 0, "posix_spawn");
  return ended(child);
}

static int fork_another(_Atomic int* word) {
  const pid_t child = fork();
  must(child >= 0, "fork");
  if (child == 0) {
    ++word[0];
    _exit(7);
  }
  return ended(child);
}

// Ends of other processes may be heard of a second later.
static long attached(int id, long wanted) {
  struct shmid_ds state = {0};
  for (int n = 0; n < 1000; ++n) {
    must(shmctl(id, IPC_STAT, &state) == 0, "IPC_STAT");
    if ((long)state.shm_nattch == wanted) break;
    usleep(10000);
  }
  return (long)state.shm_nattch;
}

static void take_turn(int i) {
  const int fd = shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
  must(fd >= 0, "shm_open");
  must(ftruncate(fd, kBytes) == 0, "ftruncate");
  close(fd);
  _Atomic int* word = map_file(name, NULL, 0);
  for (int n = 0; n < kOften; ++n) ++word[0];
  const int id = shmget(IPC_PRIVATE, kBytes, IPC_CREAT | 0600);
  must(id >= 0, "shmget");
  _Atomic int* segment = shmat(id, NULL, 0);
  must(segment != (void*)-1, "shmat");
  segment[0] = 100 * i;
  char semaphore_name[80];
  snprintf(semaphore_name, sizeof semaphore_name, "%s.sem", name);
  sem_t* semaphore = sem_open(semaphore_name, O_CREAT | O_EXCL, 0600, 2);
  must(semaphore != SEM_FAILED, "sem_open");
  must(sem_wait(semaphore) == 0 && sem_trywait(semaphore) == 0, "sem_wait");
  printf("%d: third wait %d\n", i, sem_trywait(semaphore));
  sem_close(semaphore);
  sem_unlink(semaphore_name);
  const int child = fork_another(word), other = run_another(name, id);
  printf("%d: child %d, another %d, words %d %d, segment %d of %ld\n", i, child, other, word[0],
         word[kPage / sizeof *word], segment[0], attached(id, 1));
  must(shmdt(segment) == 0, "shmdt");
  printf("%d: detached, %ld left; again %d\n", i, attached(id, 0), shmdt(segment));
  shmctl(id, IPC_RMID, NULL);
  map_file(name, private_page + (size_t)i * kBytes, MAP_FIXED);
  munmap(word, kBytes);
}

static void* run(void* argument) {
  const int me = (int)(long)argument;
  for (int i = 0; i < kThreads; ++i) {
    // Each thread shows the private page where it runs.
    int before = 0;
    for (int at = 0; at < kBytes; at += kPage) before += private_page[i * kBytes + at];
    all_come();
    if (i == me) take_turn(i);
    all_come();
    int* words = (int*)(private_page + i * kBytes);
    for (int turn = 0; turn < kThreads; ++turn) {
      if (turn == me) {
        printf("%d: %d before, now %d\n", me, before, words[0]);
        words[0] += 1000;
      }
      all_come();
    }
    if (i == me) shm_unlink(name);
  }
  return NULL;
}

int main(int argc, char** argv) {
  program = argv[0];
  if (argc > 2) return add_one(argv[1], atoi(argv[2]));
  snprintf(name, sizeof name, "/krg.spread_shared.%d", getpid());
  setvbuf(stdout, NULL, _IOLBF, 0);
  private_page =
      mmap(NULL, kThreads * kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  must(private_page != MAP_FAILED, "mmap");
  memset(private_page, 1, kThreads * kBytes);
  pthread_barrier_init(&barrier, NULL, kThreads);
  pthread_t threads[kThreads];
  for (long i = 1; i < kThreads; ++i) pthread_create(&threads[i], NULL, run, (void*)i);
  run(NULL);
  for (int i = 1; i < kThreads; ++i) pthread_join(threads[i], NULL);
  return 0;
}
