// main() of tests that choose pids: runs them as the init of a PID namespace of their own, with its
// procfs at /proc, as krgd is in its session.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) {
    perror("unshare: these tests take CAP_SYS_ADMIN");
    puts("[  SKIPPED ] no namespaces");
    return 0;
  }
  const pid_t init = fork();
  if (init == 0) {
    mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
    if (mount("proc", "/proc", "proc", 0, nullptr) != 0) _exit(99);
    const int failed = RUN_ALL_TESTS();
    fflush(nullptr);
    _exit(failed);
  }
  int status = 0;
  if (waitpid(init, &status, 0) != init || !WIFEXITED(status)) _exit(98);
  // Without its init the namespace takes no more threads: the leak sanitizer would want one.
  _exit(WEXITSTATUS(status));
}
