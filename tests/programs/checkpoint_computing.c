// Threads whose last system call has given them memory, and which compute from then on until the
// file `end` is there: they can be saved all the same. It makes the file `ready` once all do so.
// What it prints is the same natively. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kThreads = 3, kWords = 1 << 17 };
static atomic_int computing;
static atomic_bool ends;

// The same number in all words, as often as there is time for.
static void* compute(void* unused) {
  uint64_t* words = mmap(NULL, kWords * sizeof *words, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (words == MAP_FAILED) return unused;
  ++computing;
  while (!ends)
    for (int i = 0; i < kWords; ++i) ++words[i];
  for (int i = 1; i < kWords; ++i)
    if (words[i] != words[0]) return unused;
  return words;
}

int main(void) {
  pthread_t threads[kThreads];
  for (int i = 0; i < kThreads; ++i) pthread_create(&threads[i], NULL, compute, NULL);
  while (computing < kThreads) usleep(10000);
  close(open("ready", O_CREAT | O_WRONLY, 0644));
  while (access("end", F_OK) != 0) usleep(10000);
  ends = 1;
  int right = 0;
  for (int i = 0; i < kThreads; ++i) {
    void* words = NULL;
    pthread_join(threads[i], &words);
    right += words != NULL;
  }
  printf("%d of %d\n", right, kThreads);
  return 0;
}
