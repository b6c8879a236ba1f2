/* eventfd, timerfd, signalfd and epoll, alone and together, with dup and from two threads. Prints
 * what does not depend on when things happen. SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 150, PERIOD_NS = 20000000 };

static int event, doubled, semaphore, timer, once, signals, polling, finished;

static void add(int fd, uint32_t events) {
  struct epoll_event wanted = {.events = events, .data.u64 = 0x1234567800000000u + (uint64_t)fd};
  if (epoll_ctl(polling, EPOLL_CTL_ADD, fd, &wanted) != 0) exit(2);
}

/* Writes what the main thread counts. */
static void* writer(void* unused) {
  for (int i = 1; i <= ROUNDS; ++i) {
    const uint64_t value = (uint64_t)i, one = 1;
    const struct timespec pause = {0, PERIOD_NS};
    if (write(i % 2 ? event : doubled, &value, sizeof value) != sizeof value) exit(3);
    if (write(semaphore, &one, sizeof one) != sizeof one) exit(3);
    if (i % 10 == 0) kill(getpid(), SIGUSR1);
    nanosleep(&pause, NULL);
  }
  const uint64_t end = 1;
  if (write(finished, &end, sizeof end) != sizeof end) exit(3);
  return unused;
}

int main(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  event = eventfd(0, EFD_NONBLOCK);
  doubled = dup(event);
  semaphore = eventfd(5, EFD_SEMAPHORE | EFD_NONBLOCK);
  finished = eventfd(0, 0);
  timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  once = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
  signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  polling = epoll_create1(EPOLL_CLOEXEC);
  const struct itimerspec period = {{0, PERIOD_NS}, {0, PERIOD_NS}}, single = {{0, 0}, {1, 0}};
  timerfd_settime(timer, 0, &period, NULL);
  timerfd_settime(once, 0, &single, NULL);
  add(event, EPOLLIN | EPOLLET);
  add(semaphore, EPOLLIN);
  add(timer, EPOLLIN);
  add(once, EPOLLIN);
  add(signals, EPOLLIN);
  add(finished, EPOLLIN | EPOLLONESHOT);
  printf("ready\n");
  fflush(stdout);
  pthread_t thread;
  if (pthread_create(&thread, NULL, writer, NULL) != 0) return 4;

  uint64_t sum = 0, units = 0, ticks = 0, singles = 0, strange = 0, ends = 0;
  int heard = 0, quiet = 0;
  /* Till the writer is done and nothing comes but the timer. (An event of which nothing is to be
   * read is one that an edge-triggered descriptor may always tell.) */
  while (!ends || quiet < 10) {
    struct epoll_event events[8];
    const int count = epoll_wait(polling, events, 8, 1000);
    if (count < 0 && errno != EINTR) return 5;
    ++quiet;
    for (int i = 0; i < count; ++i) {
      const int fd = (int)(uint32_t)events[i].data.u64;
      struct signalfd_siginfo info;
      uint64_t value = 0;
      if (events[i].data.u64 >> 32 != 0x12345678) ++strange;
      if (fd == signals) {
        while (read(fd, &info, sizeof info) == sizeof info) {
          heard += info.ssi_signo == SIGUSR1;
          quiet = 0;
        }
        continue;
      }
      if (fd == semaphore) {
        while (read(fd, &value, sizeof value) == sizeof value) {
          units += value;
          quiet = 0;
        }
        continue;
      }
      if (read(fd, &value, sizeof value) != sizeof value) continue;
      if (fd != timer) quiet = 0;
      if (fd == event) sum += value;
      if (fd == timer) ticks += value;
      if (fd == once) singles += value;
      if (fd == finished) ends += value;
    }
  }
  pthread_join(thread, NULL);
  printf("sum %lu units %lu singles %lu ends %lu strange %lu\n", (unsigned long)sum,
         (unsigned long)units, (unsigned long)singles, (unsigned long)ends, (unsigned long)strange);
  printf("ticks %d heard %d\n", ticks > ROUNDS / 2, heard > 0);
  return 0;
}
