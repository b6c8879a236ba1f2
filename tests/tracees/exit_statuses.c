/* How a child ended, by waitpid, waitid and SIGCHLD. SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

static const int kExits[] = {0, 1, 77, 255};
static const int kSignals[] = {SIGTERM, SIGKILL, SIGSEGV, SIGUSR2, SIGABRT};

static volatile sig_atomic_t children_ended;
static void on_child(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  if (info->si_code == CLD_EXITED || info->si_code == CLD_KILLED || info->si_code == CLD_DUMPED)
    ++children_ended;
}

static void end_as(const char* role) {
  int number = atoi(role + 1);
  struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  if (role[0] == 'e') exit(number);
  if (number == SIGABRT) abort();
  raise(number);
  exit(99);
}

int main(int argc, char** argv) {
  const char* role = begin(argc, argv);
  if (role) end_as(role);
  struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGCHLD, &action, NULL);
  char name[16];
  for (size_t i = 0; i < sizeof kExits / sizeof *kExits; ++i) {
    snprintf(name, sizeof name, "e%d", kExits[i]);
    struct child child = start_child(name, -1);
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)child.pid, &info, WEXITED | WNOWAIT) != 0) fail("waitid");
    printf("waitid %s: code %d status %d right pid %d\n", name, info.si_code, info.si_status,
           info.si_pid == child.pid);
    wait_and_print(name, child.pid, 0);
  }
  for (size_t i = 0; i < sizeof kSignals / sizeof *kSignals; ++i) {
    snprintf(name, sizeof name, "s%d", kSignals[i]);
    struct child child = start_child(name, -1);
    wait_and_print(name, child.pid, 0);
  }
  printf("SIGCHLD came for %d\n", (int)children_ended);
  wait_and_print("no child", -1, 0);
  return 0;
}
