/* What the tracees share. A tracee is one small program that shows how a few system calls behave
 * between a parent and children that run exec. It prints the same lines whether its children
 * execute on its own node or elsewhere; to stderr it tells which of the two it was.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Descriptors that a child talks to its parent by: numbers that no pipe of the parent gets, whose
 * ends dup2(2) would leave close-on-exec, or close for one another. */
enum { kReportFd = 100, kOrderFd = 101 };

struct child {
  pid_t pid;
  FILE* reports; /* lines that the child says */
  int orders;    /* bytes that it waits for */
};

static const char* this_program;

__attribute__((noreturn)) static void fail(const char* what) {
  printf("%s: %s\n", what, strerror(errno));
  exit(1);
}

static inline const char* host_name(void) {
  static char name[256];
  gethostname(name, sizeof name - 1);
  return name;
}

/* Starts this program again as `role`; in process group `group` of its own (0), the caller's (-1),
 * or another's. */
static inline struct child start_child(const char* role, pid_t group) {
  int reports[2], orders[2];
  if (pipe2(reports, O_CLOEXEC) != 0 || pipe2(orders, O_CLOEXEC) != 0) fail("pipe2");
  struct child child = {fork(), NULL, orders[1]};
  if (child.pid == 0) {
    if (group >= 0) setpgid(0, group);
    if (dup2(reports[1], kReportFd) < 0 || dup2(orders[0], kOrderFd) < 0) fail("dup2");
    execl(this_program, this_program, role, host_name(), (char*)NULL);
    fail("exec");
  }
  close(reports[1]);
  close(orders[0]);
  child.reports = fdopen(reports[0], "r");
  return child;
}

/* The child's next line, without its end; ends the program when there is none. */
static inline const char* heard(struct child* child) {
  static char line[512];
  if (!fgets(line, sizeof line, child->reports)) {
    puts("the child said nothing");
    exit(1);
  }
  line[strcspn(line, "\n")] = '\0';
  return line;
}
/* Whether there is one, now or within 0.1 s. REQUIRES: every line before was heard. */
static inline int can_hear(struct child* child) {
  struct pollfd reports = {.fd = fileno(child->reports), .events = POLLIN};
  return poll(&reports, 1, 100) > 0;
}
static inline void order(struct child* child) {
  if (write(child->orders, "o", 1) != 1) fail("order");
}

/* In a child. */
__attribute__((format(printf, 1, 2))) static inline void say(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vdprintf(kReportFd, format, arguments);
  va_end(arguments);
  dprintf(kReportFd, "\n");
}
static inline void wait_for_order(void) {
  char byte;
  ssize_t got;
  while ((got = read(kOrderFd, &byte, 1)) != 1) {
    if (got < 0 && errno == EINTR) continue;
    fprintf(stderr, "no order: %s\n", got == 0 ? "end of file" : strerror(errno));
    exit(3);
  }
}

/* Two short children: where nodes are equally loaded the first may stay on the parent's node. */
static inline void load_own_node(void) {
  for (int i = 0; i < 2; ++i) {
    const pid_t decoy = fork();
    if (decoy == 0) {
      execl(this_program, this_program, "decoy", (char*)NULL);
      _exit(1);
    }
    waitpid(decoy, NULL, 0);
  }
}

/* To be called first; tells a child where it is. Returns the role, NULL in the parent. */
static inline const char* begin(int argc, char** argv) {
  this_program = argv[0];
  setvbuf(stdout, NULL, _IONBF, 0);
  if (argc == 2) exit(0); /* a decoy */
  if (argc < 2) {
    load_own_node();
    return NULL;
  }
  fputs(strcmp(argv[2], host_name()) ? "elsewhere\n" : "here\n", stderr);
  return argv[1];
}

static inline void print_status(const char* what, int status) {
  if (WIFEXITED(status))
    printf("%s: exited %d\n", what, WEXITSTATUS(status));
  else if (WIFSIGNALED(status))
    printf("%s: killed by %d\n", what, WTERMSIG(status));
  else if (WIFSTOPPED(status))
    printf("%s: stopped by %d\n", what, WSTOPSIG(status));
  else if (WIFCONTINUED(status))
    printf("%s: continued\n", what);
}
static inline void wait_and_print(const char* what, pid_t pid, int options) {
  int status = 0;
  const pid_t waited = waitpid(pid, &status, options);
  if (waited < 0)
    printf("%s: waitpid: %s\n", what, strerror(errno));
  else if (pid > 0 && waited != pid)
    printf("%s: another child\n", what);
  else
    print_status(what, status);
}
