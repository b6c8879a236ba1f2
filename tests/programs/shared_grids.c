// Processes on several nodes that compute on grids in all kinds of shared memory: anonymous, POSIX
// and System V, under mutexes, a barrier, a condition variable and a named semaphore for all of
// them; beside them, memory that has no name any more, or that nobody uses before the end. Prints a
// line for each step, the same whatever interrupts it. Needs a file "end" to come to its end.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include "grid_steps.h"

enum { kSteps = 50, kLast = 45, kApart = 50000, kLines = 64 };

struct control {
  struct steps steps;
  long turns;
};

static struct control* control;  // anonymous
static grid* grids[2];           // a POSIX object; a System V segment
static sem_t* turn;              // named
static char name[64], resting[64], semaphore[64];
static key_t key;

static void* map(int fd, size_t bytes, int protection) {
  const int flags = MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0);
  void* memory = mmap(NULL, bytes, protection, flags, fd, 0);
  must(memory != MAP_FAILED, "mmap");
  return memory;
}

static void* attach(int id, int flags) {
  void* memory = shmat(id, NULL, flags);
  must(memory != (void*)-1, "shmat");
  return memory;
}

static void fill(unsigned char* bytes, size_t count, unsigned seed) {
  for (size_t i = 0; i < count; ++i)
    bytes[i] = (unsigned char)(seed = seed * 1103515245 + 12345 + (seed >> 16));
}

static unsigned long sum_of(const unsigned char* bytes, size_t count) {
  unsigned long sum = 0;
  for (size_t i = 0; i < count; ++i) sum = sum * 31 + bytes[i];
  return sum;
}

static void take_turn(void) {
  must(sem_wait(turn) == 0, "sem_wait");
  const long turns = control->turns;
  control->turns = turns + 1;
  must(sem_post(turn) == 0, "sem_post");
}

// What others find by name and key is the same memory as what was there before they were saved.
static void look_again(int step) {
  const int fd = shm_open(name, O_RDONLY, 0);
  double line[kSide];
  must(fd >= 0 && pread(fd, line, sizeof line, 7 * sizeof line) == sizeof line, "shm_open");
  must(memcmp(line, (*grids[0])[7], sizeof line) == 0, "the POSIX object");
  close(fd);
  const int id = shmget(key, 0, 0);
  must(id >= 0, "shmget");
  grid* again = attach(id, SHM_RDONLY);
  must((*again)[9][9] == (*grids[1])[9][9], "the segment");
  must(shmdt(again) == 0, "shmdt");
  printf("found again in step %d\n", step);
}

static void work(int me) {
  for (int step = 0; step < kSteps; ++step) {
    compute(&control->steps, grids[step % 2], grids[(step + 1) % 2], me, step);
    take_turn();
    wait_until_told(&control->steps, step);
  }
  _exit(20 + me);
}

// A file of /dev/shm with something in it.
static int make_object(const char* path, size_t bytes, unsigned seed) {
  unsigned char* contents = malloc(bytes);
  const int fd = shm_open(path, O_CREAT | O_EXCL | O_RDWR, 0640);
  must(contents && fd >= 0, path);
  fill(contents, bytes, seed);
  must(write(fd, contents, bytes) == (ssize_t)bytes, path);
  free(contents);
  return fd;
}

static void make_grids(void) {
  const int fd = shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
  must(fd >= 0 && ftruncate(fd, sizeof(grid)) == 0, "shm_open");
  grids[0] = map(fd, sizeof(grid), PROT_READ | PROT_WRITE);
  close(fd);
  const int id = shmget(key, sizeof(grid), IPC_CREAT | IPC_EXCL | 0600);
  must(id >= 0, "shmget");
  grids[1] = attach(id, 0);
  for (int one = 0; one < 2; ++one) begin_grid(grids[one]);
  turn = sem_open(semaphore, O_CREAT | O_EXCL, 0600, 1);
  must(turn != SEM_FAILED, "sem_open");
}

static void tell_attributes(void) {
  char path[128];
  struct stat found;
  snprintf(path, sizeof path, "/dev/shm%s", resting);
  must(stat(path, &found) == 0, path);
  printf("%s: %o, %ld bytes\n", "resting", found.st_mode, (long)found.st_size);
}

int main(void) {
  const int pid = getpid();
  snprintf(name, sizeof name, "/krg-grid.%d", pid);
  snprintf(resting, sizeof resting, "/krg-resting.%d", pid);
  snprintf(semaphore, sizeof semaphore, "/krg-turn.%d", pid);
  key = 0x6b720000 + pid % 65536;
  control = map(-1, sizeof *control, PROT_READ | PROT_WRITE);
  prepare_steps(&control->steps);
  make_grids();
  close(make_object(resting, kApart, 5));
  const int apart = shmget(IPC_PRIVATE, kApart, 0600), gone = shmget(IPC_PRIVATE, kApart, 0600);
  must(apart >= 0 && gone >= 0, "shmget");
  unsigned char* memory = attach(apart, 0);
  fill(memory, kApart, 6);
  must(shmdt(memory) == 0, "shmdt");
  unsigned char* removed = attach(gone, 0);
  fill(removed, kApart, 7);
  must(shmctl(gone, IPC_RMID, NULL) == 0, "IPC_RMID");
  char hidden_name[64];
  snprintf(hidden_name, sizeof hidden_name, "/krg-hidden.%d", pid);
  const int hidden = make_object(hidden_name, kApart, 8);
  const unsigned char* nameless = map(hidden, kApart, PROT_READ | PROT_WRITE);
  must(shm_unlink(hidden_name) == 0 && lseek(hidden, 0, SEEK_SET) == 0, "shm_unlink");
  pid_t workers[kWorkers];
  fflush(stdout);
  start_workers(workers, work);
  for (int step = 0; step < kSteps; ++step) {
    unsigned char line[kLines];
    pthread_barrier_wait(&control->steps.barrier);
    must(read(hidden, line, sizeof line) == sizeof line, "what has no name");
    printf("%d %ld %ld %lu\n", step, control->steps.sums[step % 2], control->turns,
           sum_of(line, sizeof line));
    if (step % 10 == 9) look_again(step);
    go_on(&control->steps, step, step == kLast);
  }
  wait_for_workers(workers);
  tell_attributes();
  memory = attach(apart, SHM_RDONLY);
  printf("apart %lu, removed %lu, hidden %lu\n", sum_of(memory, kApart), sum_of(removed, kApart),
         sum_of(nameless, kApart));
  unsigned char* rest = map(shm_open(resting, O_RDONLY, 0), kApart, PROT_READ);
  printf("resting %lu\n", sum_of(rest, kApart));
  must(shm_unlink(name) == 0 && shm_unlink(resting) == 0 && sem_unlink(semaphore) == 0, "unlink");
  must(shmctl(apart, IPC_RMID, NULL) == 0 && shmctl(shmget(key, 0, 0), IPC_RMID, NULL) == 0,
       "IPC_RMID");
  return 0;
}
