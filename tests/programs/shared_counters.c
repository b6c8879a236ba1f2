// One of several processes that share a POSIX shared memory object by name:
//   shared_counters NAME PROCESSES INDEX ROUNDS
// Each adds ROUNDS to a counter of all with lock-prefixed additions, to a counter that a semaphore
// guards (polled by sem_trywait), and writes a page of its own; when all have come so far, each
// checks what all have written. Prints the host when everything is right.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "sharing.h"

enum { kPage = 4096, kPages = 64 };

struct board {
  atomic_long ready, done, sum;
  long guarded;
};

static void add_guarded(struct board* board, const char* name, int rounds) {
  sem_t* guard = sem_open(name, O_CREAT, 0600, 1);
  if (guard == SEM_FAILED) fail("sem_open");
  for (int i = 0; i < rounds; ++i) {
    while (sem_trywait(guard) != 0) usleep(100);
    ++board->guarded;
    if (sem_post(guard) != 0) fail("sem_post");
  }
  sem_close(guard);
}

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const char* name = argv[1];
  const int processes = atoi(argv[2]), index = atoi(argv[3]), rounds = atoi(argv[4]);
  int fd = shm_open(name, O_RDWR | O_CREAT, 0600);
  if (fd < 0) fail("shm_open");
  if (ftruncate(fd, kPage * kPages) != 0) fail("ftruncate");
  char* memory = mmap(NULL, kPage * kPages, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) fail("mmap");
  close(fd);
  struct board* board = (struct board*)memory;
  atomic_fetch_add(&board->ready, 1);
  wait_for(&board->ready, processes);
  for (int i = 0; i < rounds; ++i) atomic_fetch_add(&board->sum, 1);
  add_guarded(board, name, rounds / 100);
  memset(memory + kPage * (1 + index), 'a' + index, kPage);
  atomic_fetch_add(&board->done, 1);
  wait_for(&board->done, processes);
  if (board->sum != (long)processes * rounds) fail("sum");
  if (board->guarded != (long)processes * (rounds / 100)) fail("guarded sum");
  for (int i = 0; i < processes; ++i)
    for (int at = 0; at < kPage; ++at)
      if (memory[kPage * (1 + i) + at] != 'a' + i) fail("pages");
  if (munmap(memory, kPage * kPages) != 0) fail("munmap");
  char host[64] = "";
  gethostname(host, sizeof host - 1);
  puts(host);
  return 0;
}
