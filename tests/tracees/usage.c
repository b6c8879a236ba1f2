/* The processor time of children, and of theirs, shows in wait4, waitid, getrusage and times.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

#include <sys/times.h>

enum { kBurnMs = 300, kSeenMs = 250 };

static long milliseconds(const struct rusage* usage) {
  return usage->ru_utime.tv_sec * 1000 + usage->ru_utime.tv_usec / 1000 +
         usage->ru_stime.tv_sec * 1000 + usage->ru_stime.tv_usec / 1000;
}
static void burn(void) {
  struct rusage usage;
  do {
    getrusage(RUSAGE_SELF, &usage);
  } while (milliseconds(&usage) < kBurnMs);
}
static void tell(const char* what, long ms, int children) {
  printf("%s: %s\n", what,
         ms < children * kSeenMs       ? "too little"
         : ms > children * 3 * kBurnMs ? "too much"
                                       : "right");
}

int main(int argc, char** argv) {
  const char* role = begin(argc, argv);
  if (role && !strcmp(role, "middle")) {
    struct child c = start_child("burn", -1);
    return waitpid(c.pid, NULL, 0) == c.pid ? 5 : 1;
  }
  if (role) {
    burn();
    return 7;
  }
  struct rusage usage;
  int status;
  struct child c = start_child("burn", -1);
  if (wait4(c.pid, &status, 0, &usage) != c.pid) fail("wait4");
  print_status("wait4", status);
  tell("wait4", milliseconds(&usage), 1);

  c = start_child("burn", -1);
  siginfo_t info;
  if (syscall(SYS_waitid, P_PID, c.pid, &info, WEXITED, &usage) != 0) fail("waitid");
  tell("waitid", milliseconds(&usage), 1);

  c = start_child("middle", -1);
  if (wait4(c.pid, &status, 0, &usage) != c.pid) fail("wait4");
  print_status("middle", status);
  tell("grandchild", milliseconds(&usage), 1);

  getrusage(RUSAGE_CHILDREN, &usage);
  tell("getrusage", milliseconds(&usage), 3);
  struct tms ticks;
  times(&ticks);
  tell("times", (ticks.tms_cutime + ticks.tms_cstime) * 1000 / sysconf(_SC_CLK_TCK), 3);
  return 0;
}
