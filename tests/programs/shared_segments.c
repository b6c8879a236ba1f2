// One of several processes that share a System V segment by its key:
//   shared_segments KEY PROCESSES INDEX
// Each adds to a counter with lock-prefixed additions; a forked child adds as well. The first one
// removes the segment while all have it attached. Prints the host when everything is right.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/wait.h>

#include "sharing.h"

enum { kBytes = 100000, kRounds = 5000 };

struct board {
  atomic_long ready, done, removed, sum;
};

static void add(struct board* board) {
  for (int i = 0; i < kRounds; ++i) atomic_fetch_add(&board->sum, 1);
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const key_t key = atoi(argv[1]);
  const int processes = atoi(argv[2]), index = atoi(argv[3]);
  const int id = shmget(key, kBytes, IPC_CREAT | 0600);
  if (id < 0) fail("shmget");
  if (shmget(key, kBytes, IPC_CREAT | IPC_EXCL | 0600) >= 0 || errno != EEXIST) fail("exclusive");
  if (shmget(key, kBytes + 1, 0) >= 0 || errno != EINVAL) fail("a larger one");
  char* memory = shmat(id, NULL, 0);
  if (memory == (void*)-1) fail("shmat");
  struct board* board = (struct board*)memory;
  const pid_t child = fork();
  if (child == 0) {
    add(board);
    _exit(shmdt(memory));
  }
  atomic_fetch_add(&board->ready, 1);
  wait_for(&board->ready, processes);
  add(board);
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) fail("the child");
  memory[kBytes - 1 - index] = (char)('a' + index);
  atomic_fetch_add(&board->done, 1);
  wait_for(&board->done, processes);
  if (board->sum != 2L * kRounds * processes) fail("sum");
  for (int i = 0; i < processes; ++i)
    if (memory[kBytes - 1 - i] != 'a' + i) fail("end of the segment");
  struct shmid_ds state;
  if (shmctl(id, IPC_STAT, &state) != 0) fail("IPC_STAT");
  if (state.shm_segsz != kBytes || state.shm_nattch < 1) fail("size and attachments");
  if (index == 0) {
    if (shmctl(id, IPC_RMID, NULL) != 0) fail("IPC_RMID");
    if (shmget(key, 0, 0) >= 0 || errno != ENOENT) fail("the key after IPC_RMID");
    board->removed = 1;
  }
  wait_for(&board->removed, 1);
  if (shmdt(memory) != 0) fail("shmdt");
  if (shmdt(memory) == 0 || errno != EINVAL) fail("a second shmdt");
  char host[64] = "";
  gethostname(host, sizeof host - 1);
  puts(host);
  return 0;
}
