/* Signals to groups: each member gets it once, nobody else does.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

static volatile sig_atomic_t came;
static void on_signal(int signal) {
  (void)signal;
  ++came;
}

/* Has a forked child of its own in the group, which says what came to it. */
__attribute__((noreturn)) static void member(int is_sender) {
  signal(SIGUSR1, on_signal);
  int ready[2];
  if (pipe(ready) != 0) fail("pipe");
  const pid_t forked = fork();
  if (forked == 0) {
    if (write(ready[1], "r", 1) != 1) _exit(1);
    while (!came) usleep(1000);
    usleep(100000);
    _exit(came);
  }
  char byte;
  if (read(ready[0], &byte, 1) != 1) fail("read");
  say("ready");
  if (is_sender) {
    wait_for_order();
    say("kill(0) %d", kill(0, SIGUSR1));
  }
  while (!came) usleep(1000);
  usleep(100000);
  int status = 0;
  while (waitpid(forked, &status, 0) < 0) {
  }
  say("came %d, to the forked child %d", (int)came, WEXITSTATUS(status));
  for (;;) pause();
}

int main(int argc, char** argv) {
  const char* role = begin(argc, argv);
  if (role) member(!strcmp(role, "sender"));
  signal(SIGUSR1, on_signal);
  struct child leader = start_child("leader", 0);
  setpgid(leader.pid, leader.pid);
  struct child second = start_child("member", leader.pid);
  puts(heard(&leader));
  puts(heard(&second));
  printf("kill of the group %d\n", kill(-leader.pid, SIGUSR1));
  puts(heard(&leader));
  puts(heard(&second));
  kill(-leader.pid, SIGSTOP);
  wait_and_print("leader", leader.pid, WUNTRACED);
  wait_and_print("member", second.pid, WUNTRACED);
  kill(-leader.pid, SIGCONT);
  wait_and_print("leader", leader.pid, WCONTINUED);
  wait_and_print("member", second.pid, WCONTINUED);
  kill(-leader.pid, SIGKILL);
  wait_and_print("leader", leader.pid, 0);
  wait_and_print("member", second.pid, 0);
  printf("the group is gone: %s\n", kill(-leader.pid, 0) < 0 ? strerror(errno) : "no");

  leader = start_child("sender", 0);
  setpgid(leader.pid, leader.pid);
  second = start_child("member", leader.pid);
  puts(heard(&leader));
  puts(heard(&second));
  order(&leader);
  puts(heard(&leader));
  puts(heard(&leader));
  puts(heard(&second));
  kill(-leader.pid, SIGTERM);
  wait_and_print("leader", leader.pid, 0);
  wait_and_print("member", second.pid, 0);
  printf("to the parent came %d\n", (int)came);
  return 0;
}
