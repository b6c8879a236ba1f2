// Processes on several nodes that have words of their own in each page of memory that all of them
// share, and know what they have written where: what they find after a restart is what they had
// when they were saved, whatever has moved where meanwhile. Either all write on and on
// ("shared_words"), until there is a file "end"; or ("shared_words parts") each writes ten pages
// when there is a file "part.N", N = 1, 2, …, and the parent tells so in "parts.done".
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "must.h"

enum { kWriters = 3, kPages = 2048, kWords = 512, kPart = 10, kParts = 8 };

typedef long page[kWords];

static page* pages;
static long* done;  // parts, of each writer
static volatile long* rounds;

static int is_there(const char* path) {
  return access(path, F_OK) == 0;
}

static void wait_for(const char* path) {
  while (!is_there(path)) usleep(5000);
}

static void expect(int me, int number, long word) {
  if (pages[number][me] == word) return;
  printf("writer %d, page %d: %ld in place of %ld\n", me, number, pages[number][me], word);
  exit(1);
}

static void write_on(int me) {
  for (long round = 1; round < 3 || !is_there("end"); ++round) {
    for (int number = 0; number < kPages; ++number) {
      expect(me, number, round - 1);
      pages[number][me] = round;
    }
    rounds[me] = round;
  }
  exit(0);
}

static void write_parts(int me) {
  for (int number = me; number < kPages; number += kWriters) pages[number][me] = 1;
  rounds[me] = 1;
  for (int part = 1; part <= kParts; ++part) {
    char path[32];
    snprintf(path, sizeof path, "part.%d", part);
    while (!is_there(path) && !is_there("end")) usleep(5000);
    if (!is_there(path)) break;
    for (int i = 0; i < kPart; ++i)
      pages[(part * 211 + me * 67 + i * 3 * kWriters) % kPages][me] = part + 1;
    done[me] = part;
  }
  exit(0);
}

static void tell_parts(void) {
  for (int part = 1; part <= kParts; ++part) {
    char path[32];
    for (int me = 0; me < kWriters; ++me)
      while (((volatile long*)done)[me] < part && !is_there("end")) usleep(5000);
    if (is_there("end")) break;
    snprintf(path, sizeof path, "%d\n", part);
    const int fd = open("parts.new", O_CREAT | O_TRUNC | O_WRONLY, 0600);
    must(fd >= 0 && write(fd, path, strlen(path)) > 0 && close(fd) == 0, "parts.new");
    must(rename("parts.new", "parts.done") == 0, "rename");
  }
}

static void* share(size_t bytes) {
  void* memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  must(memory != MAP_FAILED, "mmap");
  return memory;
}

int main(int count, char** arguments) {
  const int has_parts = count > 1 && strcmp(arguments[1], "parts") == 0;
  pages = share(kPages * sizeof(page));
  rounds = share(4096);
  done = share(4096);
  for (int number = 0; number < kPages; number += 2) pages[number][kWriters] = number;
  fflush(stdout);
  for (int me = 0; me < kWriters; ++me)
    if (fork() == 0) has_parts ? write_parts(me) : write_on(me);
  for (int me = 0; me < kWriters; ++me)
    while (rounds[me] < 1) usleep(5000);
  must(close(open("ready", O_CREAT | O_WRONLY, 0600)) == 0, "ready");
  if (has_parts) tell_parts();
  wait_for("end");
  int status = 0;
  for (int left = kWriters; left > 0; --left) must(wait(&status) > 0 && status == 0, "a writer");
  long sum = 0;
  for (int number = 0; number < kPages; ++number) {
    must(pages[number][kWriters] == (number % 2 ? 0 : number), "what nobody writes");
    for (int me = 0; me < kWriters && has_parts; ++me) sum = sum * 31 + pages[number][me];
  }
  printf("all as it was %ld\n", sum);
  return 0;
}
