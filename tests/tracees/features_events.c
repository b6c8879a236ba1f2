/* What tells of other things: inotify instances, pidfds, eventfds, timerfds, signalfds, and epoll
 * instances. See features.c.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "features.h"

/* What the kernel told since the last time, one letter an event and the last one of its name. */
static void read_events(int instance, int watch, char* told, size_t room) {
  char bytes[4096] __attribute__((aligned(8)));
  ssize_t got;
  told[0] = 0;
  while ((got = read(instance, bytes, sizeof bytes)) > 0 || errno == EINTR)
    for (ssize_t at = 0; at < got;) {
      const struct inotify_event* event = (const struct inotify_event*)(bytes + at);
      at += (ssize_t)(sizeof *event + event->len);
      check(event->wd == watch, "number of a watch");
      const char kind = event->mask & IN_CREATE       ? 'c'
                        : event->mask & IN_MOVED_FROM ? 'f'
                        : event->mask & IN_MOVED_TO   ? 't'
                        : event->mask & IN_DELETE     ? 'd'
                        : event->mask & IN_IGNORED    ? 'i'
                                                      : '?';
      const size_t used = strlen(told);
      if (used + 3 < room)
        snprintf(told + used, room - used, "%c%c", kind,
                 event->len ? event->name[strlen(event->name) - 1] : '.');
    }
  check(errno == EAGAIN, "read of events");
}
static void make(const char* folder, const char* name) {
  char path[96];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  const int file = open(path, O_WRONLY | O_CREAT, 0600);
  check(file >= 0, "file");
  close(file);
}

/* Events wait to be read, watches come and go, wherever the process is meanwhile. */
void inotify(void) {
  const uint32_t kinds = IN_CREATE | IN_MOVE | IN_DELETE;
  char folder[64], first[96], second[96], told[64];
  snprintf(folder, sizeof folder, "watched.%d", getpid());
  snprintf(first, sizeof first, "%s/a", folder);
  snprintf(second, sizeof second, "%s/b", folder);
  check(mkdir(folder, 0700) == 0, "mkdir");
  const int instance = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  const int same = dup(instance);
  check(instance >= 0 && same >= 0, "inotify");
  int watch = inotify_add_watch(instance, folder, kinds);
  check(watch == 1, "first watch");
  for (int round = 1; goes_on(); ++round) {
    make(folder, "a");
    rest(2);
    check(rename(first, second) == 0, "rename");
    struct pollfd wanted = {.fd = instance, .events = POLLIN};
    check(poll(&wanted, 1, 5000) == 1 && wanted.revents == POLLIN, "poll");
    rest(2);
    read_events(round % 2 ? instance : same, watch, told, sizeof told);
    check(strcmp(told, "cafatb") == 0, told);
    wanted.revents = 0;
    check(poll(&wanted, 1, 3) == 0, "poll of nothing");
    check(unlink(second) == 0, "unlink");
    if (round % 3 == 0) {
      rest(2);
      check(inotify_rm_watch(instance, watch) == 0, "end of a watch");
      make(folder, "x");
      rest(2);
      read_events(instance, watch, told, sizeof told);
      check(strcmp(told, "dbi.") == 0, told);
      const int next = inotify_add_watch(same, folder, kinds);
      check(next == watch + 1, "next watch");
      watch = next;
    } else {
      read_events(instance, watch, told, sizeof told);
      check(strcmp(told, "db") == 0, told);
    }
    check(inotify_rm_watch(instance, watch + 1) == -1 && errno == EINVAL, "no such watch");
    check(inotify_add_watch(instance, second, kinds) == -1 && errno == ENOENT, "no such file");
  }
  snprintf(first, sizeof first, "%s/x", folder);
  unlink(first);
  rmdir(folder);
  puts("all events told");
}

/* A child tells of its end, is waited for and gets signals by a pidfd. */
void pidfds(void) {
  for (int round = 0; goes_on(); ++round) {
    const pid_t child = fork();
    if (child == 0) {
      if (round % 2) pause();
      rest(20);
      _exit(round % 100);
    }
    check(child > 0, "fork");
    const int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    check(pidfd >= 0, "pidfd_open");
    struct pollfd wanted = {.fd = pidfd, .events = POLLIN};
    if (round % 2) {
      check(poll(&wanted, 1, 5) == 0, "a child that waits");
      check(syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0) == 0, "pidfd_send_signal");
    }
    int got;
    while ((got = poll(&wanted, 1, 10000)) < 0 && errno == EINTR) {
    }
    check(got == 1 && wanted.revents & POLLIN, "end of a child");
    rest(3);
    siginfo_t info = {0};
    while ((got = waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED)) < 0 && errno == EINTR) {
    }
    check(got == 0 && info.si_pid == child, "waitid");
    if (round % 2)
      check(info.si_code == CLD_KILLED && info.si_status == SIGTERM, "killed child");
    else
      check(info.si_code == CLD_EXITED && info.si_status == round % 100, "exited child");
    check(syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) == -1 && errno == ESRCH, "no process");
    close(pidfd);
  }
  puts("all pidfds told");
}

enum { COUNTER, SEMAPHORE, TIMER, SIGNALS, EVENT_FILES };

static void watch_all(int instance, const int* files) {
  for (int i = 0; i < EVENT_FILES; ++i) {
    struct epoll_event wanted = {.events = EPOLLIN | (i == COUNTER ? EPOLLET : 0),
                                 .data.u64 = 0x1234567800000000u + (uint64_t)i};
    check(epoll_ctl(instance, EPOLL_CTL_ADD, files[i], &wanted) == 0, "epoll_ctl");
  }
}
/* Adds up what is to be read, by kind. */
static void take_events(int instance, const int* files, uint64_t* sums) {
  struct epoll_event events[EVENT_FILES];
  const int count = epoll_wait(instance, events, EVENT_FILES, 1000);
  check(count >= 0 || errno == EINTR, "epoll_wait");
  for (int i = 0; i < count; ++i) {
    const uint32_t which = (uint32_t)events[i].data.u64;
    check(events[i].data.u64 >> 32 == 0x12345678 && which < EVENT_FILES, "data of an event");
    struct signalfd_siginfo info;
    uint64_t value = 0;
    if (which == SIGNALS) {
      while (read(files[which], &info, sizeof info) == sizeof info) {
        check(info.ssi_signo == SIGUSR1, "signal");
        ++sums[which];
      }
    } else {
      while (read(files[which], &value, sizeof value) == sizeof value) sums[which] += value;
    }
    check(errno == EAGAIN || errno == EINTR, "read of events");
  }
}
/* All that is told arrives, and once, wherever the process is meanwhile. */
void events(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  const int files[EVENT_FILES] = {
      eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK),
      timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), signalfd(-1, &set, SFD_NONBLOCK)};
  const int again = dup(files[COUNTER]), instance = epoll_create1(EPOLL_CLOEXEC);
  const struct itimerspec period = {{0, 3000000}, {0, 3000000}};
  check(timerfd_settime(files[TIMER], 0, &period, NULL) == 0, "timerfd_settime");
  watch_all(instance, files);
  uint64_t sums[EVENT_FILES] = {0}, wanted[EVENT_FILES] = {0};
  for (uint64_t round = 1; goes_on(); ++round) {
    const uint64_t units = round % 5;
    wanted[COUNTER] += round;
    wanted[SEMAPHORE] += units;
    ++wanted[SIGNALS];
    check(write(round % 2 ? files[COUNTER] : again, &round, sizeof round) == sizeof round, "write");
    check(write(files[SEMAPHORE], &units, sizeof units) == sizeof units, "write");
    check(kill(getpid(), SIGUSR1) == 0, "kill");
    const uint64_t ticks = sums[TIMER];
    for (int i = 0; i < 2000; ++i) {
      take_events(instance, files, sums);
      if (sums[COUNTER] >= wanted[COUNTER] && sums[SEMAPHORE] >= wanted[SEMAPHORE] &&
          sums[SIGNALS] >= wanted[SIGNALS] && sums[TIMER] > ticks)
        break;
    }
    check(sums[TIMER] > ticks, "ticks");
    check(sums[COUNTER] == wanted[COUNTER] && sums[SEMAPHORE] == wanted[SEMAPHORE] &&
              sums[SIGNALS] == wanted[SIGNALS],
          "sums");
  }
  puts("all events told");
}
