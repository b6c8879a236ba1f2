/* What the features share: see features.c. SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern int64_t end_ns;

static inline int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}
static inline int goes_on(void) {
  return now_ns() < end_ns;
}
__attribute__((noreturn)) static inline void fail(const char* what) {
  printf("%s: %s\n", what, strerror(errno));
  exit(1);
}
static inline void check(int is_right, const char* what) {
  if (!is_right) fail(what);
}
static inline void rest(long ms) {
  struct timespec left = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&left, &left) != 0)
    if (errno != EINTR) fail("nanosleep");
}

void files(void);
void flocks(void);
void record_locks(void);
void memfds(void);
void inotify(void);
void events(void);
void pidfds(void);
void mappings(void);
void pipes(void);
void sockets(void);
void packets(void);
void tcp(void);
void listening(void);
void fifos(void);
void shared_memory(void);
void ttys(void);
void stopped(void);
