// An OpenMP program that writes a known small part of a large array, then waits to be saved. Its
// threads verify all of it before each part. Part N begins as the file `part.N` is there, and is
// written when `parts.done` says N; it ends after part LAST, as the file `end` is there, too.
// checkpoint_parts LAST. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { kPages = 8192, kWords = 4096 / sizeof(uint64_t), kWritten = 40 };
static uint64_t array[kPages][kWords] __attribute__((aligned(4096)));

// The `i`th page that is written by part `part`; part 0 writes all.
static int page_of(int part, int i) {
  return (i * 199 + part * 61) % kPages;
}

static uint64_t value(int part, int page, int word) {
  return ((uint64_t)part << 32 | (uint64_t)page << 10 | (uint64_t)word) * 0x9e3779b97f4a7c15ULL + 1;
}

static void write_page(int part, int page) {
  for (int word = 0; word < kWords; ++word) array[page][word] = value(part, page, word);
}

// Which part has written each page last, when `part` was the last one.
static void expect(int part, int* last) {
  for (int page = 0; page < kPages; ++page) last[page] = 0;
  for (int one = 1; one <= part; ++one)
    for (int i = 0; i < kWritten; ++i) last[page_of(one, i)] = one;
}

static void verify(int part) {
  static int last[kPages];
  expect(part, last);
  long wrong = 0;
#pragma omp parallel for reduction(+ : wrong) schedule(static)
  for (int page = 0; page < kPages; ++page)
    for (int word = 0; word < kWords; ++word)
      wrong += array[page][word] != value(last[page], page, word);
  if (wrong == 0) return;
  printf("after part %d: %ld wrong words\n", part, wrong);
  exit(1);
}

static void await(const char* name) {
  while (access(name, F_OK) != 0) usleep(5000);
}

static void tell(int part) {
  FILE* file = fopen("parts.new", "w");
  fprintf(file, "%d\n", part);
  fclose(file);
  rename("parts.new", "parts.done");
}

int main(int argc, char** argv) {
  const int last = argc > 1 ? atoi(argv[1]) : 0;
#pragma omp parallel for schedule(static)
  for (int page = 0; page < kPages; ++page) write_page(0, page);
  for (int part = 0;; ++part) {
    verify(part);
    tell(part);
    if (part == 0) close(open("ready", O_CREAT | O_WRONLY, 0644));
    if (part == last) break;
    char name[32];
    snprintf(name, sizeof name, "part.%d", part + 1);
    await(name);
    verify(part);
#pragma omp parallel for schedule(static, 1)
    for (int i = 0; i < kWritten; ++i) write_page(part + 1, page_of(part + 1, i));
  }
  await("end");
  verify(last);
  printf("%d parts, as it should be\n", last);
  return 0;
}
