// What the programs of the IPC tests have in common.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sem.h>
#include <time.h>

static int semaphores;  // the set that change() is of

static void must(int good, const char* what) {
  if (good) return;
  perror(what);
  exit(9);
}

static uint64_t mix(uint64_t x) {
  for (int i = 0; i < 1000; ++i) x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15ULL + 1;
  return x;
}

static void pause_ms(long ms) {
  const struct timespec time = {0, ms * 1000000};
  nanosleep(&time, NULL);
}

static void change(unsigned short number, short by, short flags) {
  struct sembuf operation = {number, by, flags};
  must(semop(semaphores, &operation, 1) == 0, "semop");
}
