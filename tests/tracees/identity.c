/* Parents, process groups and sessions, as parent and child see them.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

static int child(void) {
  say("parent %d group %d session %d", getppid(), getpgrp(), getsid(0));
  wait_for_order();
  pid_t forked = fork();
  if (forked == 0) {
    say("grandchild: parent %d group %d session %d", getppid(), getpgrp(), getsid(0));
    _exit(0);
  }
  waitpid(forked, NULL, 0);
  wait_for_order();
  const int moved = setpgid(0, 0);
  say("setpgid %d, leads %d", moved, getpgrp() == getpid());
  wait_for_order();
  const int led = setsid() < 0 ? errno : 0;
  say("setsid of a leader: %s", strerror(led));
  say("of parent: group %d session %d", getpgid(getppid()), getsid(getppid()));
  wait_for_order();
  return 0;
}

static int session_child(void) {
  wait_for_order();
  const pid_t session = setsid();
  say("setsid %d group %d session %d", session == getpid(), getpgrp() == getpid(),
      getsid(0) == getpid());
  wait_for_order();
  return 0;
}

static int orphan_parent(void) {
  struct child c = start_child("orphan", -1);
  say("%s", heard(&c));
  return 0;
}

/* What the child should see, and what it saw. */
static void compare(const char* what, const char* format, struct child* c) {
  char expected[256];
  snprintf(expected, sizeof expected, format, getpid(), getpgrp(), getsid(0));
  const char* line = heard(c);
  printf("%s: %s\n", what, strcmp(line, expected) == 0 ? "right" : line);
}

int main(int argc, char** argv) {
  const char* role = begin(argc, argv);
  if (role && !strcmp(role, "session")) return session_child();
  if (role && !strcmp(role, "orphan_parent")) return orphan_parent();
  if (role && !strcmp(role, "orphan")) {
    say("orphan");
    return 0;
  }
  if (role) return child();
  struct child c = start_child("child", -1);
  compare("child", "parent %d group %d session %d", &c);
  printf("seen from the parent: group %d session %d\n", getpgid(c.pid) == getpgrp(),
         getsid(c.pid) == getsid(0));
  order(&c);
  char expected[256];
  snprintf(expected, sizeof expected, "grandchild: parent %d group %d session %d", c.pid, getpgrp(),
           getsid(0));
  const char* line = heard(&c);
  printf("grandchild: %s\n", strcmp(line, expected) == 0 ? "right" : line);
  order(&c);
  puts(heard(&c));
  printf("its own group %d\n", getpgid(c.pid) == c.pid);
  order(&c);
  puts(heard(&c));
  snprintf(expected, sizeof expected, "of parent: group %d session %d", getpgrp(), getsid(0));
  line = heard(&c);
  printf("of parent: %s\n", strcmp(line, expected) == 0 ? "right" : line);
  printf("setpgid after exec: %s\n", setpgid(c.pid, 0) < 0 ? strerror(errno) : "done");
  order(&c);
  wait_and_print("child", c.pid, 0);

  struct child s = start_child("session", -1);
  order(&s);
  puts(heard(&s));
  printf("its own session %d\n", getsid(s.pid) == s.pid);
  order(&s);
  wait_and_print("session child", s.pid, 0);

  struct child o = start_child("orphan_parent", -1);
  puts(heard(&o));
  wait_and_print("orphan's parent", o.pid, 0);
  return 0;
}
