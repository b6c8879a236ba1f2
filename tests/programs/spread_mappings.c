// Memory that comes, moves and goes while threads run: each change by one thread is seen by the
// others. What is printed does not depend on who ran where.
//   spread_mappings LIBRARY   a shared object with `int counter` = 7 and `int count(void)`
// SPDX-License-Identifier: GPL-2.0-or-later
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kPage = 4096, kRounds = 30 };

static pthread_barrier_t barrier;
static char* memory;
static size_t bytes;

static void meet(void) {
  pthread_barrier_wait(&barrier);
}

static long sum(void) {
  long all = 0;
  for (size_t i = 0; i < bytes; i += kPage / 2) all += memory[i];
  return all;
}

// What one thread prepares, the other sums up and changes, the first sums up again.
static void show(const char* what, int self) {
  meet();
  if (self == 1) {
    printf("%s: %ld", what, sum());
    for (size_t i = 0; i < bytes; i += kPage) memory[i]++;
  }
  meet();
  if (self == 0) printf(", %ld\n", sum());
  meet();
}

static void grow_heap(void) {
  bytes = 64 * kPage;
  memory = sbrk((long)bytes);
  if (memory == (void*)-1) abort();
  memset(memory, 1, bytes);
}
static void grow_heap_again(void) {
  if (sbrk(3 * kPage + 100) == (void*)-1) abort();
  bytes += 3 * kPage;
  memset(memory, 2, bytes);
}
static void shrink_heap(void) {
  if (sbrk(-10 * kPage) == (void*)-1) abort();
  bytes -= 10 * kPage;
}
static void map(void) {
  bytes = 20 * kPage;
  memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) abort();
  memset(memory, 3, bytes);
}
static void remap(size_t now) {
  char* moved = mremap(memory, bytes, now, MREMAP_MAYMOVE);
  if (moved == MAP_FAILED) abort();
  memory = moved;
  if (now > bytes) memset(memory + bytes, 4, now - bytes);
  bytes = now;
}
static void map_file(int protection) {
  const int file = open("/proc/self/exe", O_RDONLY);
  bytes = 2 * kPage;
  memory = mmap(NULL, bytes, protection, MAP_PRIVATE, file, 0);
  if (memory == MAP_FAILED) abort();
  close(file);
}
static void protect(int protection) {
  if (mprotect(memory, bytes, protection) != 0) abort();
}
static void drop(void) {
  if (madvise(memory, bytes / 2, MADV_DONTNEED) != 0) abort();
}

static void change_all(int self) {
  if (self == 0) grow_heap();
  show("heap", self);
  if (self == 0) grow_heap_again();
  show("heap grown", self);
  if (self == 0) shrink_heap();
  show("heap shrunk", self);
  if (self == 0) map();
  show("mapped", self);
  if (self == 1) remap(50 * kPage);
  show("moved", self);
  if (self == 0) remap(90 * kPage);
  show("moved again", self);
  if (self == 0) remap(9 * kPage);
  show("shrunk", self);
  if (self == 0) drop();
  show("dropped", self);
  if (self == 1) {
    protect(PROT_NONE);
    protect(PROT_READ);
    protect(PROT_READ | PROT_WRITE);
  }
  show("protected", self);
  if (self == 0) map_file(PROT_READ | PROT_WRITE);
  show("file, for writing", self);
  if (self == 0) {
    map_file(PROT_READ);
    printf("file: %ld", sum());
  }
  meet();
  if (self == 1) printf(" %d\n", memcmp(memory, "\177ELF", 4));
  meet();
}

// The same address gets other memory, again and again.
static void replace(int self) {
  if (self == 0) map();
  long right = 0;
  for (int i = 0; i < kRounds; i++) {
    meet();
    if (self == i % 2) {
      if (i % 3 == 0) munmap(memory, bytes);
      char* again = mmap(memory, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
      if (again != memory) abort();
      right += sum() == 0;
      memset(memory, i, bytes);
    }
    meet();
    right += memory[5 * kPage] == i && memory[bytes - 1] == i;
  }
  meet();
  if (self == 1) printf("replaced: %ld", right);
  meet();
  if (self == 0) printf(" %ld\n", right);
  meet();
}

static const char* path;
static int (*count)(void);
static int* counter;

static void load(int self) {
  if (self == 1) {
    void* library = dlopen(path, RTLD_NOW);
    if (!library) abort();
    count = (int (*)(void))dlsym(library, "count");
    counter = dlsym(library, "counter");
    printf("library: %d", count());
  }
  meet();
  if (self == 0) printf(" %d", count());
  meet();
  if (self == 1) printf(" %d, %d\n", count(), *counter);
  meet();
}

static void run(int self) {
  change_all(self);
  replace(self);
  load(self);
}
static void* other(void* argument) {
  run(1);
  return argument;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  path = argv[1];
  setvbuf(stdout, malloc(1 << 16), _IOFBF, 1 << 16);
  pthread_barrier_init(&barrier, NULL, 2);
  pthread_t thread;
  if (pthread_create(&thread, NULL, other, NULL) != 0) return 1;
  run(0);
  pthread_join(thread, NULL);
  return 0;
}
