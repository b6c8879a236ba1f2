/* fork_interrupts: how often fork fails with EINTR, which natively it never does, in a program
 * whose children end every few milliseconds and whose handler of SIGCHLD restarts nothing.
 *
 *   fork_interrupts FORKS COMPUTING        FORKS children sleep for up to 20 ms, while COMPUTING
 *                                          more of them keep the processors busy; prints
 *                                          "FORKS FAILED"
 *   fork_interrupts FORKS COMPUTING sleep  the children execute sleep(1)
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_COMPUTING = 64, LONGEST_US = 20000, BETWEEN_US = 2000 };

static void note(int number) {
  (void)number;
}

static void live(int microseconds, int execute) {
  char seconds[32];
  if (!execute) {
    usleep(microseconds);
    _exit(0);
  }
  snprintf(seconds, sizeof seconds, "%f", microseconds / 4e6);
  execlp("sleep", "sleep", seconds, (char*)NULL);
  _exit(127);
}

int main(int argc, char** argv) {
  const int forks = argc > 2 ? atoi(argv[1]) : 0, computing = argc > 2 ? atoi(argv[2]) : -1;
  const int execute = argc > 3 && strcmp(argv[3], "sleep") == 0;
  pid_t busy[MOST_COMPUTING];
  if (forks <= 0 || computing < 0 || computing > MOST_COMPUTING) {
    fprintf(stderr, "usage: fork_interrupts FORKS COMPUTING [sleep]\n");
    return 2;
  }
  for (int i = 0; i < computing; i++) {
    busy[i] = fork();
    if (busy[i] == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) continue;
    }
  }
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = note;
  sigaction(SIGCHLD, &action, NULL);
  int failed = 0;
  for (int i = 0; i < forks; i++) {
    const pid_t child = fork();
    if (child == 0) live(rand() % LONGEST_US, execute);
    if (child < 0 && errno != EINTR) perror("fork");
    failed += child < 0;
    usleep(BETWEEN_US);
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
  }
  for (int i = 0; i < computing; i++) kill(busy[i], SIGKILL);
  printf("%d %d\n", forks, failed);
  return 0;
}
