// One process that uses more memory than its node may have:
//   remote_memory MIB [block|small|run [COMMAND]]
// Fills memory (one block of MIB MiB, or blocks of 1 KiB), then reads all of it forward, backward
// and at random, writes all of it again and checks that, too. Each word says where it is and in
// which round it was written. Unless it merely runs (which it can natively, too), checks what else
// programs do with such memory. Runs COMMAND while it still has its memory, and prints "right".
// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kBlock = 1024, kPage = 4096, kWordsPerBlock = kBlock / 8 };

static uint64_t** blocks;  // of 1 KiB each
static size_t count;

static void fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t value_of(size_t block, size_t word, uint64_t round) {
  return (block * kWordsPerBlock + word) * 0x9e3779b97f4a7c15u + round;
}

static void write_block(size_t block, uint64_t round) {
  for (size_t word = 0; word < kWordsPerBlock; ++word)
    blocks[block][word] = value_of(block, word, round);
}

static void check_block(size_t block, uint64_t round) {
  for (size_t word = 0; word < kWordsPerBlock; ++word)
    if (blocks[block][word] != value_of(block, word, round)) {
      errno = EIO;
      fail("content");
    }
}

static void check_all(uint64_t round) {
  for (size_t i = 0; i < count; ++i) check_block(i, round);
  for (size_t i = count; i-- > 0;) check_block(i, round);
  uint64_t seed = 1;
  for (size_t i = 0; i < 2000; ++i) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    check_block((seed >> 33) % count, round);
  }
}

// Memory of other nodes is what system calls read and write, too.
static void check_system_calls(void) {
  int pipes[2];
  if (pipe(pipes) != 0) fail("pipe");
  if (write(pipes[1], blocks[0], kBlock) != kBlock) fail("write from the memory");
  if (read(pipes[0], blocks[count - 1], kBlock) != kBlock) fail("read into the memory");
  if (memcmp(blocks[0], blocks[count - 1], kBlock) != 0) fail("what was read");
  write_block(count - 1, 2);
}

// What memory that nobody shares does: none of it may reach a child, dropped pages are zeros, a
// block may grow.
static void check_private(void) {
  const size_t bytes = 4u << 20;
  char* memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  memset(memory, 1, bytes);
  errno = 0;
  if (fork() >= 0 || errno != ENOMEM) fail("a fork that should be refused");
  if (system("exit 3") != 3 << 8) fail("system");
  if (madvise(memory + kPage, kPage, MADV_DONTNEED) != 0) fail("MADV_DONTNEED");
  if (madvise(memory + 3 * kPage, kPage, MADV_FREE) != 0) fail("MADV_FREE");
  for (size_t i = 0; i < 5 * kPage; ++i)
    if (memory[i] != (i / kPage != 1 && i / kPage != 3)) fail("zeros");
  if (mprotect(memory, kPage, PROT_READ) != 0) fail("mprotect");
  if (munmap(memory + bytes / 2, bytes / 2) != 0 || memory[bytes / 2 - 1] != 1)
    fail("munmap of a part");
  if (munmap(memory, bytes / 2) != 0) fail("munmap");
  char* block = malloc(bytes);
  if (!block) fail("malloc");
  memset(block, 7, bytes);
  block = realloc(block, 2 * bytes);
  if (!block) fail("realloc");
  for (size_t i = 0; i < bytes; ++i)
    if (block[i] != 7) fail("what realloc kept");
  free(block);
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  count = (size_t)atol(argv[1]) * 1024;
  blocks = malloc(count * sizeof *blocks);
  const int is_small = argc > 2 && strcmp(argv[2], "small") == 0;
  char* whole = is_small ? NULL : malloc(count * kBlock);
  if (!blocks || (!is_small && !whole)) fail("malloc");
  for (size_t i = 0; i < count; ++i) {
    blocks[i] = is_small ? malloc(kBlock) : (uint64_t*)(whole + i * kBlock);
    if (!blocks[i]) fail("malloc");
    write_block(i, 1);
  }
  check_all(1);
  for (size_t i = 0; i < count; ++i) write_block(i, 2);
  check_system_calls();
  check_all(2);
  if (argc < 3 || strcmp(argv[2], "run") != 0) check_private();
  if (argc > 3 && system(argv[3]) != 0) fail(argv[3]);
  puts("right");
  return 0;
}
