// Threads that write to memory all the time, in all ways that there are, and know what is to be in
// each page: two of them, each with a region of its own. usage: checkpoint_writer MIB MICROSECONDS
// [pages], the pause between what each does (0: none, and all pages are written again and again);
// `pages`: only these change, and no mapping. It makes
// the file `ready` once all pages have been written, and tells whether all is right when the file
// `end` is there. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum { kThreads = 2, kPage = 4096, kWords = kPage / 8, kChunk = 256 };
static atomic_int written;
static atomic_bool ends;
static size_t pages;  // of each
static useconds_t pause_us;
static int changes_mappings;

struct Region {
  uint64_t random;
  char* memory;
  char* spare;       // as long as a chunk, with what was there when it was left
  uint64_t* wanted;  // by page: what each word of it is; 0: it has no contents
  uint64_t next;
  char wrong[200];
};

static uint64_t number(struct Region* r, uint64_t below) {
  r->random ^= r->random << 13;
  r->random ^= r->random >> 7;
  r->random ^= r->random << 17;
  return r->random % below;
}

static char* at(const struct Region* r, size_t page) {
  return r->memory + page * kPage;
}

// By the program itself, or by the kernel: from a pipe, or as one process writes to another.
static void write_page(struct Region* r, size_t page, int pipe_ends[2]) {
  uint64_t words[kWords];
  const uint64_t value = ++r->next;
  for (int i = 0; i < kWords; ++i) words[i] = value;
  const uint64_t how = number(r, 8);
  const struct iovec local = {words, kPage}, remote = {at(r, page), kPage};
  if (how == 0) {
    if (write(pipe_ends[1], words, kPage) != kPage ||
        read(pipe_ends[0], at(r, page), kPage) != kPage)
      snprintf(r->wrong, sizeof r->wrong, "a pipe");
  } else if (how != 1 || process_vm_writev(getpid(), &local, 1, &remote, 1, 0) != kPage) {
    for (int i = 0; i < kWords; ++i) ((volatile uint64_t*)at(r, page))[i] = value;
  }
  r->wanted[page] = value;
}

static void check_page(struct Region* r, size_t page) {
  const uint64_t* words = (const uint64_t*)at(r, page);
  for (int i = 0; i < kWords; ++i)
    if (words[i] != r->wanted[page] && !r->wrong[0])
      snprintf(r->wrong, sizeof r->wrong, "word %d of page %zu of %p is %lu, not %lu", i, page,
               (void*)r->memory, words[i], r->wanted[page]);
}

static void forget(struct Region* r, size_t first, size_t count) {
  for (size_t i = first; i < first + count; ++i) r->wanted[i] = 0;
}

// Leaves zeros there; where it fails zeros are at `to`, whose mapping is gone by then.
static int move(char* from, char* to, size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, all = PROT_READ | PROT_WRITE;
  const int moved = mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED;
  mmap(moved ? from : to, bytes, all, flags, -1, 0);
  return moved;
}

static void change_mappings(struct Region* r) {
  // Single pages are moved: more may lie in several mappings, as memory does whose parts are
  // watched, and the kernel moves no such (EFAULT).
  const uint64_t what = number(r, 5);
  const size_t count = what == 2 || what == 3 ? 1 : 1 + number(r, kChunk);
  const size_t first = number(r, pages - count);
  const size_t bytes = count * kPage;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  char* there = at(r, first);
  const size_t other = number(r, pages - count);
  const int is_apart = other + count <= first || first + count <= other;
  switch (what) {
    case 0:
      madvise(there, bytes, MADV_DONTNEED);
      return forget(r, first, count);
    case 1:  // others are there afterwards
      munmap(there, bytes);
      if (mmap(there, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, -1, 0) != there)
        snprintf(r->wrong, sizeof r->wrong, "mmap");
      return forget(r, first, count);
    case 2:  // away and back, with what was there before in its place meanwhile
      if (!move(there, r->spare, bytes)) return;
      there[0] = 1;
      usleep(pause_us);
      if (!move(r->spare, there, bytes)) memcpy(there, r->spare, bytes);
      return;
    case 3:  // to where others have been
      if (!is_apart) return;
      if (!move(there, at(r, other), bytes)) return forget(r, other, count);
      memcpy(r->wanted + other, r->wanted + first, count * sizeof *r->wanted);
      return forget(r, first, count);
    default:
      mprotect(there, bytes, PROT_NONE);
      usleep(pause_us);
      mprotect(there, bytes, PROT_READ | PROT_WRITE);
  }
}

static void* work(void* of) {
  struct Region* r = of;
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) return "pipe";
  for (size_t i = 0; i < pages; ++i) write_page(r, i, pipe_ends);
  ++written;
  for (uint64_t step = 0; !ends && !r->wrong[0]; ++step) {
    write_page(r, pause_us ? number(r, pages) : step % pages, pipe_ends);
    if (changes_mappings && step % 64 == 0) change_mappings(r);  // most pages keep contents
    check_page(r, number(r, pages));
    if (pause_us) usleep(pause_us);
  }
  for (size_t i = 0; i < pages; ++i) check_page(r, i);
  return r->wrong[0] ? r->wrong : NULL;
}

int main(int argc, char** argv) {
  pages = argc > 1 ? strtoul(argv[1], NULL, 10) * (1 << 20) / kPage / kThreads : 1024;
  pause_us = argc > 2 ? (useconds_t)strtoul(argv[2], NULL, 10) : 100;
  changes_mappings = argc < 4;
  pthread_t threads[kThreads];
  struct Region regions[kThreads] = {0};
  for (int i = 0; i < kThreads; ++i) {
    struct Region* r = &regions[i];
    r->random = 88172645463325252u + (uint64_t)i;
    // Nothing else comes to lie where a chunk is away.
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    r->memory = mmap(NULL, pages * kPage, PROT_READ | PROT_WRITE, flags, -1, 0);
    r->spare = mmap(NULL, kChunk * kPage, PROT_NONE, flags | MAP_NORESERVE, -1, 0);
    r->wanted = calloc(pages, sizeof *r->wanted);
    if (r->memory == MAP_FAILED || r->spare == MAP_FAILED || !r->wanted) return 1;
    madvise(r->memory, pages * kPage, i == 0 ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    pthread_create(&threads[i], NULL, work, r);
  }
  while (written < kThreads) usleep(10000);
  close(open("ready", O_CREAT | O_WRONLY, 0644));
  while (access("end", F_OK) != 0) usleep(10000);
  ends = 1;
  int right = 0;
  for (int i = 0; i < kThreads; ++i) {
    void* wrong = NULL;
    pthread_join(threads[i], &wrong);
    right += wrong == NULL;
    if (wrong) printf("%s\n", (const char*)wrong);
  }
  printf("%d of %d\n", right, kThreads);
  return 0;
}
