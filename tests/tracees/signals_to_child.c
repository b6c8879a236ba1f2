/* kill, sigqueue, stop and continue from a parent to its child and back.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

static volatile sig_atomic_t came_number, came_code, came_value, came_from_parent, came_uid;
static void on_signal(int signal, siginfo_t* info, void* context) {
  (void)context;
  came_code = info->si_code;
  came_from_parent = info->si_pid == getppid();
  came_uid = (int)info->si_uid;
  came_value = info->si_value.sival_int;
  came_number = signal;
}

static void tell_signal(void) {
  while (!came_number) usleep(1000);
  const int number = came_number;
  came_number = 0;
  if (came_code == SI_QUEUE)
    say("signal %d code %d from parent %d own uid %d value %d", number, came_code, came_from_parent,
        came_uid == (int)getuid(), came_value);
  else
    say("signal %d code %d from parent %d own uid %d", number, came_code, came_from_parent,
        came_uid == (int)getuid());
}

__attribute__((noreturn)) static void child(void) {
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGRTMIN + 3, &action, NULL);
  say("ready");
  tell_signal();
  tell_signal();
  say("own signals: %d", raise(SIGUSR1) == 0 && came_number == SIGUSR1);
  came_number = 0;
  say("own kill: %d", kill(getpid(), SIGUSR1) == 0 && came_number == SIGUSR1);
  say("kill parent: %d", kill(getppid(), SIGUSR2));
  for (;;) pause();
}

static volatile sig_atomic_t parent_got;
static void on_usr2(int signal) {
  parent_got = signal;
}

int main(int argc, char** argv) {
  if (begin(argc, argv)) child();
  signal(SIGUSR2, on_usr2);
  struct child c = start_child("child", 0);
  puts(heard(&c));
  printf("probe %d\n", kill(c.pid, 0));
  kill(c.pid, SIGUSR1);
  puts(heard(&c));
  sigqueue(c.pid, SIGRTMIN + 3, (union sigval){.sival_int = 4711});
  puts(heard(&c));
  puts(heard(&c));
  puts(heard(&c));
  puts(heard(&c));
  while (!parent_got) usleep(1000);
  printf("parent got %d\n", (int)parent_got);
  kill(c.pid, SIGSTOP);
  wait_and_print("stop", c.pid, WUNTRACED);
  kill(c.pid, SIGCONT);
  wait_and_print("continue", c.pid, WCONTINUED);
  kill(c.pid, SIGTSTP);
  wait_and_print("terminal stop", c.pid, WUNTRACED);
  kill(c.pid, SIGCONT);
  wait_and_print("continue", c.pid, WCONTINUED);
  kill(c.pid, SIGSTOP);
  wait_and_print("stop", c.pid, WUNTRACED);
  kill(c.pid, SIGKILL);
  wait_and_print("kill", c.pid, WUNTRACED);
  printf("probe of the dead: %s\n", kill(c.pid, 0) < 0 ? strerror(errno) : "there");
  return 0;
}
