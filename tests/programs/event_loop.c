// Processes that live by epoll: a parent with an eventfd, a periodic timerfd, a signalfd and a pipe
// in one epoll instance, and two workers that share another one, inherited by fork. Prints a line
// for each step, the same whatever interrupts it. Needs a file "end" to come to its end.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "must.h"

enum { kWorkers = 2, kTasks = 5, kSteps = 40, kLast = 35, kPipeNumber = 100 };

struct result {
  uint64_t in, out;
};

static uint64_t mix(uint64_t x) {
  for (int i = 0; i < 200000; ++i) x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15ULL + 1;
  return x;
}

static void watch(int epoll, int fd, uint32_t events) {
  struct epoll_event event = {.events = events,
                              .data = {.u64 = 0x1234567800000000ULL + (uint64_t)fd}};
  must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

// Takes a token at a time from the semaphore that both watch, and the number that goes with it.
static void work(int epoll, int tokens, int numbers, int results, int done) {
  for (;;) {
    struct epoll_event event;
    if (epoll_wait(epoll, &event, 1, -1) != 1) continue;
    uint64_t token;
    if (read(tokens, &token, sizeof token) != sizeof token) {
      must(errno == EAGAIN, "a token");
      continue;
    }
    must(token == 1, "one token");
    struct result result;
    if (read(numbers, &result.in, sizeof result.in) != sizeof result.in) _exit(3);
    if (result.in == 0) _exit(4);
    result.out = mix(result.in);
    must(write(results, &result, sizeof result) == sizeof result, "a result");
    const uint64_t one = 1;
    must(write(done, &one, sizeof one) == sizeof one, "done");
    const union sigval value = {.sival_int = (int)(result.out & 0xffff)};
    must(sigqueue(getppid(), SIGRTMIN, value) == 0, "sigqueue");
  }
}

int main(void) {
  int numbers[2], results[2];
  must(pipe(numbers) == 0 && pipe(results) == 0, "pipe");
  const int tokens = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK), done = eventfd(0, 0);
  const int shared = epoll_create1(0);
  watch(shared, tokens, EPOLLIN);
  pid_t workers[kWorkers];
  for (int i = 0; i < kWorkers; ++i)
    if ((workers[i] = fork()) == 0) {
      close(results[0]);
      work(shared, tokens, numbers[0], results[1], done);
    }
  close(numbers[0]);

  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGRTMIN);
  sigprocmask(SIG_BLOCK, &mask, NULL);
  const int signals = signalfd(-1, &mask, 0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
  const struct itimerspec period = {{0, 7000000}, {0, 7000000}};
  timerfd_settime(timer, 0, &period, NULL);
  // Watched by a number that it has no more.
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  must(fcntl(results[0], F_SETFL, O_NONBLOCK) == 0 && dup2(results[0], kPipeNumber) == kPipeNumber,
       "dup2");
  watch(epoll, kPipeNumber, EPOLLIN);
  close(kPipeNumber);
  watch(epoll, signals, EPOLLIN);
  watch(epoll, timer, EPOLLIN | EPOLLET);
  watch(epoll, done, EPOLLIN);
  // An instance in another one.
  const int outer = epoll_create1(0);
  watch(outer, epoll, EPOLLIN);
  close(open("ready", O_CREAT | O_WRONLY, 0644));

  uint64_t state = 1;
  for (int step = 0; step < kSteps; ++step) {
    for (uint64_t i = 1; i <= kTasks; ++i) {
      const uint64_t number = state + i;
      must(write(numbers[1], &number, sizeof number) == sizeof number, "a number");
    }
    const uint64_t count = kTasks;
    must(write(tokens, &count, sizeof count) == sizeof count, "tokens");
    uint64_t sum = 0, told = 0, ticks = 0;
    int got = 0, signalled = 0, finished = 0;
    while (got < kTasks || signalled < kTasks || finished < kTasks || ticks < 6 ||
           (step == kLast && access("end", F_OK) != 0)) {
      struct epoll_event event;
      if (epoll_wait(outer, &event, 1, -1) != 1) continue;
      must((int)(event.data.u64 & 0xffffffff) == epoll && event.data.u64 >> 32 == 0x12345678,
           "an event of the outer");
      if (epoll_wait(epoll, &event, 1, 1000) != 1) continue;
      const int fd = (int)(event.data.u64 & 0xffffffff);
      struct result result;
      struct signalfd_siginfo info;
      uint64_t value;
      if (fd == kPipeNumber) {
        must(read(results[0], &result, sizeof result) == sizeof result, "results");
        must(result.out == mix(result.in), "a result");
        sum += result.out;
        ++got;
      } else if (fd == signals) {
        must(read(signals, &info, sizeof info) == sizeof info, "signals");
        told += (uint64_t)info.ssi_int;
        ++signalled;
      } else if (fd == timer) {
        must(read(timer, &value, sizeof value) == sizeof value, "timer");
        ticks += value;
      } else if (fd == done) {
        must(read(done, &value, sizeof value) == sizeof value, "done");
        finished += (int)value;
      } else {
        must(0, "an event");
      }
    }
    must(got == kTasks && signalled == kTasks && finished == kTasks, "as many as tasks");
    state = mix(sum + told);
    printf("%d %llx %llx\n", step, (unsigned long long)sum, (unsigned long long)told);
    fflush(stdout);
  }
  const uint64_t ends[kWorkers] = {0}, count = kWorkers;
  must(write(numbers[1], ends, sizeof ends) == sizeof ends, "ends");
  must(write(tokens, &count, sizeof count) == sizeof count, "tokens");
  for (int i = 0; i < kWorkers; ++i) {
    int status = 0;
    must(waitpid(workers[i], &status, 0) == workers[i], "waitpid");
    printf("worker %d ends with %d\n", i, WEXITSTATUS(status));
  }
  return 0;
}
