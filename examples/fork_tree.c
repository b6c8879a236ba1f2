/* fork_tree: a program that knows nothing of Kerrighed. It forks a binary tree of processes, and
 * each tells on which host it runs:
 *
 *   krgrun -N 4 --caps=+DISTANT_FORK fork_tree        2 levels below the first process: 7 processes
 *
 * usage: fork_tree [-e] [LEVELS [NAME]]; a line a process: NAME, host, pid, parent. NAME is the
 * place in the tree: "0", its children "00" and "01", and so on. -e: each child executes this
 * program anew; without it, it only forks.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 2, MAX_LEVELS = 12 };

static const char* program;
static int executes;

static void report(const char* name) {
  char host[64] = "";
  char line[256];

  gethostname(host, sizeof host - 1);
  int length = snprintf(line, sizeof line, "%-*s %-16s pid %d parent %d\n", MAX_LEVELS + 1, name,
                        host, (int)getpid(), (int)getppid());
  /* One write a line, so that lines of different processes do not mix. */
  if (write(STDOUT_FILENO, line, (size_t)length) != length) exit(1);
}

static int be_process(int levels, const char* name);

static pid_t start_child(int levels, const char* name) {
  pid_t child = fork();

  if (child != 0) return child;
  if (!executes) _exit(be_process(levels, name));
  char text[16];
  snprintf(text, sizeof text, "%d", levels);
  execlp(program, program, "-e", text, name, (char*)NULL);
  perror(program);
  _exit(127);
}

static int be_process(int levels, const char* name) {
  pid_t children[CHILDREN];
  int failures = 0;

  report(name);
  if (levels == 0) return 0;
  for (int i = 0; i < CHILDREN; i++) {
    char child_name[MAX_LEVELS + 8];
    snprintf(child_name, sizeof child_name, "%.*s%d", MAX_LEVELS + 1, name, i);
    children[i] = start_child(levels - 1, child_name);
    if (children[i] < 0) perror("fork");
  }
  for (int i = 0; i < CHILDREN; i++) {
    int status = 0;
    if (children[i] < 0 || waitpid(children[i], &status, 0) != children[i] || status != 0)
      failures = 1;
  }
  return failures;
}

int main(int argc, char** argv) {
  program = argv[0];
  executes = argc > 1 && strcmp(argv[1], "-e") == 0;
  argc -= executes;
  argv += executes;
  int levels = argc > 1 ? atoi(argv[1]) : 2;

  if (levels < 0 || levels > MAX_LEVELS) {
    fprintf(stderr, "fork_tree: 0 to %d levels\n", MAX_LEVELS);
    return 2;
  }
  return be_process(levels, argc > 2 ? argv[2] : "0");
}
