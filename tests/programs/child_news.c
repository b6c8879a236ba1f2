// What a handler of SIGCHLD is told of children that are killed, end, stop and go on, while its
// process computes, waits for a signal, or waits for another child. Prints a line for each, the
// same wherever the children are. Needs a file "go" to begin, behind "ready".
// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "must.h"

enum { kMost = 32 };
enum way { kComputes, kSleeps, kWaits, kWays };
static const char* const kNames[] = {"computes", "sleeps", "waits"};

static siginfo_t told[kMost];
static volatile sig_atomic_t count;
static volatile pid_t other;  // to be killed by the handler: it is waited for

static void on_child(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  if (count < kMost) told[count] = *info;
  ++count;
  if (other > 0 && info->si_pid != other) kill(other, SIGKILL);
}

static void end_late(int signal) {
  (void)signal;
  usleep(100000);
  _exit(7);
}
static void die_late(int signal) {
  (void)signal;
  usleep(100000);
  raise(SIGKILL);
}
static void stop_late(int signal) {
  (void)signal;
  usleep(100000);
  raise(SIGSTOP);
}

static pid_t start_child(void) {
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, &before);
  const pid_t child = fork();
  must(child >= 0, "fork");
  if (child != 0) {
    sigprocmask(SIG_SETMASK, &before, NULL);
    return child;
  }
  signal(SIGCHLD, SIG_DFL);
  signal(SIGTERM, end_late);
  signal(SIGUSR1, die_late);
  signal(SIGUSR2, stop_late);
  sigprocmask(SIG_SETMASK, &before, NULL);
  for (;;) pause();
}

static void await_news(enum way way) {
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  int status;
  switch (way) {
    case kComputes:
      while (count == 0) continue;
      break;
    case kSleeps:
      sigprocmask(SIG_BLOCK, &blocked, &before);
      while (count == 0) sigsuspend(&before);
      sigprocmask(SIG_SETMASK, &before, NULL);
      break;
    default:
      must(waitpid(other, &status, 0) == other && WTERMSIG(status) == SIGKILL, "the other child");
  }
}

static void ask(const char* what, enum way way, pid_t child, int signal) {
  count = 0;
  if (way == kWaits) other = start_child();
  must(kill(child, signal) == 0, "kill");
  await_news(way);
  other = 0;
  printf("%s %s: code %d status %d pid %d user %d\n", kNames[way], what, told[0].si_code,
         told[0].si_status, told[0].si_pid == child, told[0].si_uid == getuid());
}

static void* sleep_on(void* unused) {
  for (;;) pause();
  return unused;
}

int main(int argc, char** argv) {
  (void)argv;
  const struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
  must(sigaction(SIGCHLD, &action, NULL) == 0, "sigaction");
  pthread_t thread;
  must(argc == 1 || pthread_create(&thread, NULL, sleep_on, NULL) == 0, "pthread_create");
  pid_t children[kWays][2];
  for (int way = 0; way < kWays; ++way)
    for (int i = 0; i < 2; ++i) children[way][i] = start_child();
  close(open("ready", O_CREAT | O_WRONLY, 0644));
  while (access("go", F_OK) != 0) usleep(10000);
  for (int way = 0; way < kWays; ++way) {
    ask("stopped", way, children[way][0], SIGUSR2);
    if (way != kWaits) ask("goes on", way, children[way][0], SIGCONT);
    if (way == kWaits) {
      count = 0;
      kill(children[way][0], SIGCONT);
      while (count == 0) usleep(1000);
    }
    ask("ends", way, children[way][0], SIGTERM);
    ask("dies", way, children[way][1], SIGUSR1);
    for (int i = 0; i < 2; ++i) {
      int status;
      must(waitpid(children[way][i], &status, 0) == children[way][i], "waitpid");
    }
  }
  return 0;
}
