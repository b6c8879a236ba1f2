/* eventfds, signalfds and pidfds that children have of their parent: at their exec, or (FORKS) at
 * their fork; not both in one program, whose forks would all be taken for such that exec.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

/* Numbers that an exec'd child knows them by. */
enum { kCounter = 50, kBack = 51, kUnits = 52, kSignals = 53, kSibling = 54 };

static int same_number(int fd, int number) {
  if (fd < 0 || dup2(fd, number) != number) fail("descriptor");
  close(fd);
  return number;
}
static uint64_t taken(int fd) {
  uint64_t value = 0;
  ssize_t got;
  while ((got = read(fd, &value, sizeof value)) < 0 && errno == EINTR) {
  }
  return got == sizeof value ? value : 0;
}
static int add(int fd, uint64_t value) {
  return write(fd, &value, sizeof value) == sizeof value;
}
static int is_ready(int fd, short events, int ms) {
  struct pollfd one = {.fd = fd, .events = events};
  return poll(&one, 1, ms) == 1 && one.revents & events;
}

/* In a child. What goes wrong is its exit status. */
static int use_all(void) {
  if (is_ready(kCounter, POLLIN, 50)) return 1;
  if (!is_ready(kCounter, POLLOUT, 1000)) return 2;
  if (!add(kBack, 1)) return 3;
  uint64_t sum = 0;
  while (sum < 1000 && is_ready(kCounter, POLLIN, 20000)) sum += taken(kCounter);
  if (sum != 1000) return 4;
  if (!add(kBack, 2)) return 5;
  if (taken(kCounter) != 77) return 6; /* it waits */
  fcntl(kCounter, F_SETFL, O_NONBLOCK);
  if (taken(kCounter) != 0 || errno != EAGAIN) return 7;
  for (int i = 0; i < 3; ++i)
    if (taken(kUnits) != 1) return 8;
  uint64_t most = UINT64_MAX;
  if (add(kBack, most) || errno != EINVAL) return 9;
  if (read(kBack, &most, 4) != -1 || errno != EINVAL) return 10;
  struct signalfd_siginfo info;
  if (!add(kBack, 4) || !is_ready(kSignals, POLLIN, 20000)) return 11;
  if (read(kSignals, &info, sizeof info) != sizeof info || info.ssi_signo != SIGUSR1) return 12;
  if (info.ssi_pid != (uint32_t)getppid()) return 13;
  if (is_ready(kSibling, POLLIN, 20)) return 14;
  if (syscall(SYS_pidfd_send_signal, kSibling, SIGTERM, NULL, 0) != 0) return 15;
  if (!is_ready(kSibling, POLLIN, 20000)) return 16;
  return add(kBack, 8) ? 0 : 17;
}

/* In the parent: until the child has said so much, whatever else it has added. */
static void wait_for(uint64_t* heard, uint64_t wanted) {
  while (!(*heard & wanted)) {
    if (!is_ready(kBack, POLLIN, 30000)) fail("eventfd");
    *heard |= taken(kBack);
  }
}

static int start(void);
static void try_child(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  same_number(eventfd(0, 0), kCounter);
  same_number(eventfd(0, 0), kBack);
  same_number(eventfd(2, EFD_SEMAPHORE), kUnits);
  same_number(signalfd(-1, &set, 0), kSignals);
  const pid_t sibling = fork();
  if (sibling == 0) {
    for (;;) pause();
  }
  same_number((int)syscall(SYS_pidfd_open, sibling, 0), kSibling);
  const pid_t child = start();
  if (child < 0) fail("fork");
  uint64_t heard = 0;
  wait_for(&heard, 1);
  add(kCounter, 400);
  add(kCounter, 600);
  wait_for(&heard, 2);
  add(kCounter, 77);
  add(kUnits, 1);
  wait_for(&heard, 4);
  kill(child, SIGUSR1);
  wait_for(&heard, 8);
  wait_and_print("child", child, 0);
  wait_and_print("sibling", sibling, 0);
  printf("left over: %d\n", is_ready(kCounter, POLLIN, 0) + is_ready(kUnits, POLLIN, 0));
  for (int number = kCounter; number <= kSibling; ++number) close(number);
}

#ifdef FORKS
static const char* parent_host;

static int start(void) {
  const pid_t child = fork();
  if (child != 0) return child;
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  fputs(strcmp(parent_host, name) ? "elsewhere\n" : "here\n", stderr);
  _exit(use_all());
}
#else
static int start(void) {
  const pid_t child = fork();
  if (child != 0) return child;
  execl(this_program, this_program, "child", host_name(), (char*)NULL);
  _exit(99);
}
#endif

int main(int argc, char** argv) {
#ifdef FORKS
  setvbuf(stdout, NULL, _IONBF, 0);
  parent_host = strdup(host_name());
  (void)argc, (void)argv;
#else
  if (begin(argc, argv)) return use_all();
#endif
  for (int i = 0; i < 4; ++i) try_child();
  return 0;
}
