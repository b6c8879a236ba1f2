// A process that is told of files by inotify and of a child's end by a pidfd, both in one epoll
// instance. Prints a line for each step, the same whatever interrupts it: after a restart lost
// events are told of (IN_Q_OVERFLOW), and it looks for itself. Needs a file "end" to come to its
// end. SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "must.h"

enum { kSteps = 40, kLast = 35, kGone = 3 };

static int overflows;

// Whether the watch `watch` has told of `name`, or that something was lost; waits.
static void wait_for(int epoll, int instance, int watch, const char* name) {
  for (;;) {
    struct epoll_event event;
    if (epoll_wait(epoll, &event, 1, -1) != 1 || event.data.fd != instance) continue;
    char bytes[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    const ssize_t got = read(instance, bytes, sizeof bytes);
    if (got < 0 && errno == EAGAIN) continue;
    must(got > 0, "events");
    for (ssize_t at = 0; at < got;) {
      const struct inotify_event* one = (const struct inotify_event*)(bytes + at);
      if (one->mask & IN_Q_OVERFLOW) {
        must(one->wd == -1, "an overflow");
        ++overflows;
        return;
      }
      if (one->wd == watch && (!name || (one->len > 0 && strcmp(one->name, name) == 0))) return;
      at += (ssize_t)(sizeof *one + one->len);
    }
  }
}

static int pidfd_of(pid_t child) {
  const int fd = (int)syscall(SYS_pidfd_open, child, 0);
  must(fd >= 0, "pidfd_open");
  return fd;
}

static void watch_fd(int epoll, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
  must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

int main(void) {
  must((mkdir("spool", 0755) == 0 || errno == EEXIST), "mkdir");
  close(open("log", O_CREAT | O_WRONLY | O_TRUNC, 0644));
  symlink("log", "link");
  const int instance = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  // Numbers with a gap.
  const int gone = inotify_add_watch(instance, "/", IN_DELETE_SELF);
  const int folder = inotify_add_watch(instance, "spool", IN_CREATE | IN_EXCL_UNLINK);
  const int file = inotify_add_watch(instance, "link", IN_MODIFY);
  const int link = inotify_add_watch(instance, "link", IN_DELETE_SELF | IN_DONT_FOLLOW);
  must(gone == 1 && folder == 2 && file == 3 && link == 4, "inotify_add_watch");
  must(inotify_rm_watch(instance, gone) == 0, "inotify_rm_watch");
  must(rename("spool", "renamed") == 0 && rename("renamed", "spool") == 0, "rename");

  int hold[2];
  must(pipe(hold) == 0, "pipe");
  const pid_t child = fork();
  if (child == 0) {
    char byte;
    close(hold[1]);
    _exit(read(hold[0], &byte, 1) == 0 ? 5 : 6);
  }
  const pid_t short_one = fork();
  if (short_one == 0) _exit(7);
  const int living = pidfd_of(child), ended = pidfd_of(short_one), own = pidfd_of(getpid());
  must(fcntl(living, F_SETFL, O_NONBLOCK) == 0, "F_SETFL");
  const pid_t reaped = fork();
  if (reaped == 0) _exit(0);
  const int past = pidfd_of(reaped);
  must(waitpid(reaped, NULL, 0) == reaped, "waitpid");
  const int epoll = epoll_create1(0);
  watch_fd(epoll, instance);
  watch_fd(epoll, living);
  close(open("ready", O_CREAT | O_WRONLY, 0644));

  int log = open("log", O_WRONLY | O_APPEND);
  for (int step = 0; step < kSteps; ++step) {
    char name[32], path[48];
    snprintf(name, sizeof name, "file%d", step);
    snprintf(path, sizeof path, "spool/%s", name);
    unlink(path);
    close(open(path, O_CREAT | O_WRONLY, 0644));
    wait_for(epoll, instance, folder, name);
    must(access(path, F_OK) == 0, path);
    must(write(log, "x", 1) == 1, "write");
    wait_for(epoll, instance, file, NULL);
    must(syscall(SYS_pidfd_send_signal, living, 0, NULL, 0) == 0, "the child lives");
    must(syscall(SYS_pidfd_send_signal, own, 0, NULL, 0) == 0, "itself");
    must(syscall(SYS_pidfd_send_signal, past, 0, NULL, 0) == -1 && errno == ESRCH, "one that was");
    printf("%d\n", step);
    fflush(stdout);
    do {
      usleep(20000);
    } while (step == kLast && access("end", F_OK) != 0);
  }
  siginfo_t info;
  must((fcntl(living, F_GETFL) & O_NONBLOCK) != 0, "O_NONBLOCK of a pidfd");
  must(waitid((idtype_t)kGone, (id_t)living, &info, WEXITED) == -1 && errno == EAGAIN, "it lives");
  close(hold[1]);
  close(hold[0]);
  struct epoll_event event;
  while (epoll_wait(epoll, &event, 1, -1) != 1 || event.data.fd != living) {
    char bytes[4096];
    if (read(instance, bytes, sizeof bytes) < 0) must(errno == EAGAIN, "events");
  }
  must(waitid((idtype_t)kGone, (id_t)living, &info, WEXITED) == 0, "waitid");
  printf("child %d\n", info.si_status);
  must(waitid((idtype_t)kGone, (id_t)ended, &info, WEXITED) == 0, "waitid");
  printf("short one %d\n", info.si_status);
  const int next = inotify_add_watch(instance, ".", IN_CREATE);
  must(next > link, "a number that was not used");
  fprintf(stderr, "%d overflows\n", overflows);
  return 0;
}
