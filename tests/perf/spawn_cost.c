/* spawn_cost: how long fork + exec + exit + wait of a small program takes, and where the children
 * ran.
 *
 *   spawn_cost COUNT      starts itself COUNT times, one after the other; prints
 *                         "MICROSECONDS_PER_SPAWN CHILDREN_ON_ANOTHER_HOST"
 *   spawn_cost busy COUNT the same while this host has one more process that counts as running
 *                         (it waits in vfork, state D) but uses no processor
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "median.h"

enum { HERE = 0, ELSEWHERE = 1, HOST_BYTES = 65 };

static pid_t start_waiting_process(void) {
  pid_t waiting = fork();
  if (waiting == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    if (vfork() == 0)
      for (;;) pause();
    _exit(0);
  }
  setpgid(waiting, waiting);
  return waiting;
}

static int spawn(const char* program, const char* host) {
  int status = 0;
  pid_t child = fork();
  if (child == 0) {
    execl(program, program, "child", host, (char*)NULL);
    _exit(127);
  }
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
      WEXITSTATUS(status) > ELSEWHERE) {
    fprintf(stderr, "spawn_cost: a child failed (status %#x)\n", status);
    exit(1);
  }
  return WEXITSTATUS(status);
}

int main(int argc, char** argv) {
  char host[HOST_BYTES] = "";
  gethostname(host, sizeof host - 1);
  if (argc == 3 && strcmp(argv[1], "child") == 0)
    return strcmp(argv[2], host) == 0 ? HERE : ELSEWHERE;

  int is_busy = argc == 3 && strcmp(argv[1], "busy") == 0;
  int count = argc > 1 ? atoi(argv[argc - 1]) : 0;
  if (count <= 0) {
    fprintf(stderr, "usage: spawn_cost [busy] COUNT\n");
    return 2;
  }
  pid_t waiting = is_busy ? start_waiting_process() : 0;
  /* The loads of the nodes are known after the first exchange. */
  for (int i = 0; i < 10; i++) {
    spawn(argv[0], host);
    usleep(20000);
  }
  int elsewhere = 0;
  double start = now_us();
  for (int i = 0; i < count; i++) elsewhere += spawn(argv[0], host);
  printf("%.1f %d\n", (now_us() - start) / count, elsewhere);
  if (waiting > 0) kill(-waiting, SIGKILL);
  return 0;
}
