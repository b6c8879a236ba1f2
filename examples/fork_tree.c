/* fork_tree: a program that knows nothing of Kerrighed. It forks a binary tree of processes, each
 * of which executes this program anew, and each tells on which host it runs:
 *
 *   krgrun -N 4 --caps=+DISTANT_FORK fork_tree        2 levels below the first process: 7 processes
 *
 * usage: fork_tree [LEVELS [NAME]]; a line a process: NAME, host, pid, parent. NAME is the place in
 * the tree: "0", its children "00" and "01", and so on.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 2, MAX_LEVELS = 12 };

static void report(const char* name) {
  char host[64] = "";
  char line[256];

  gethostname(host, sizeof host - 1);
  int length = snprintf(line, sizeof line, "%-*s %-16s pid %d parent %d\n", MAX_LEVELS + 1, name,
                        host, (int)getpid(), (int)getppid());
  /* One write a line, so that lines of different processes do not mix. */
  if (write(STDOUT_FILENO, line, (size_t)length) != length) exit(1);
}

static pid_t start_child(const char* program, int levels, const char* name) {
  pid_t child = fork();

  if (child == 0) {
    char text[16];
    snprintf(text, sizeof text, "%d", levels);
    execlp(program, program, text, name, (char*)NULL);
    perror(program);
    _exit(127);
  }
  return child;
}

int main(int argc, char** argv) {
  int levels = argc > 1 ? atoi(argv[1]) : 2;
  const char* name = argc > 2 ? argv[2] : "0";
  pid_t children[CHILDREN];
  int failures = 0;

  if (levels < 0 || levels > MAX_LEVELS) {
    fprintf(stderr, "fork_tree: 0 to %d levels\n", MAX_LEVELS);
    return 2;
  }
  report(name);
  if (levels == 0) return 0;
  for (int i = 0; i < CHILDREN; i++) {
    char child_name[MAX_LEVELS + 8];
    snprintf(child_name, sizeof child_name, "%.*s%d", MAX_LEVELS + 1, name, i);
    children[i] = start_child(argv[0], levels - 1, child_name);
    if (children[i] < 0) perror("fork");
  }
  for (int i = 0; i < CHILDREN; i++) {
    int status = 0;
    if (children[i] < 0 || waitpid(children[i], &status, 0) != children[i] || status != 0)
      failures = 1;
  }
  return failures;
}
