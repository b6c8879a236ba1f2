/* Limits, priorities and scheduling of a child, set and read by its parent.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

#include <sched.h>

static int child(void) {
  say("ready");
  wait_for_order();
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  say("sees limit %d %d, nice %d, policy %d", (int)limit.rlim_cur, (int)limit.rlim_max,
      getpriority(PRIO_PROCESS, 0), sched_getscheduler(0));
  return 0;
}

int main(int argc, char** argv) {
  if (begin(argc, argv)) return child();
  struct child c = start_child("child", -1);
  puts(heard(&c));
  const struct rlimit wanted = {123, 456};
  struct rlimit old, now;
  printf("prlimit %d\n", prlimit(c.pid, RLIMIT_NOFILE, &wanted, NULL));
  printf("prlimit %d\n", prlimit(c.pid, RLIMIT_NOFILE, NULL, &now));
  printf("limit %d %d\n", (int)now.rlim_cur, (int)now.rlim_max);
  getrlimit(RLIMIT_NOFILE, &old);
  printf("own limit untouched %d\n", old.rlim_cur != 123);
  printf("setpriority %d\n", setpriority(PRIO_PROCESS, (id_t)c.pid, 5));
  printf("nice %d\n", getpriority(PRIO_PROCESS, (id_t)c.pid));
  struct sched_param parameter = {0};
  printf("sched_setscheduler %d\n", sched_setscheduler(c.pid, SCHED_BATCH, &parameter));
  printf("policy %d\n", sched_getscheduler(c.pid));
  order(&c);
  puts(heard(&c));
  wait_and_print("child", c.pid, 0);
  printf("of the dead: %s\n",
         prlimit(c.pid, RLIMIT_NOFILE, NULL, &now) < 0 ? strerror(errno) : "?");
  return 0;
}
