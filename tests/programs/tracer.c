// Forks children that ask to be traced, and lets each go on from its stop: prints what each was
// told ("traced", or the error), one line a child. SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kChildren = 6 };

static void child(void) {
  if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0) _exit(errno);
  raise(SIGSTOP);
  _exit(0);
}

int main(void) {
  for (int i = 0; i < kChildren; ++i) {
    const pid_t pid = fork();
    if (pid == 0) child();
    int status, stops = 0;
    while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
      ++stops;
      if (ptrace(PTRACE_CONT, pid, 0, 0) != 0) return 1;
    }
    const int error = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    puts(error == 0 && stops > 0 ? "traced" : strerror(error));
  }
  return 0;
}
