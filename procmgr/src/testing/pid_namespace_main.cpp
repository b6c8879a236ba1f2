// main() of tests that choose pids: runs them as the init of a PID namespace of their own, with its
// procfs at /proc, as krgd is in its session. With --as-user, as an ordinary user's krgd: in a user
// namespace, which knows that user alone.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

namespace {

bool write_text(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  const bool done = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  close(fd);
  return done;
}

bool become_ordinary_user() {
  constexpr uid_t kNobody = 65534;
  if (geteuid() == 0 && (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
                         setresuid(kNobody, kNobody, kNobody) != 0))
    return false;
  prctl(PR_SET_DUMPABLE, 1);  // else /proc/self belongs to root (proc(5))
  const std::string uid = std::to_string(geteuid()), gid = std::to_string(getegid());
  return unshare(CLONE_NEWUSER) == 0 && write_text("/proc/self/setgroups", "deny") &&
         write_text("/proc/self/uid_map", uid + " " + uid + " 1") &&
         write_text("/proc/self/gid_map", gid + " " + gid + " 1");
}

// Beside the results of the run as root, which may be going on: both would take the same name.
void name_results_of_user(std::string program) {
  const std::string folder = GTEST_FLAG_GET(output);
  program.erase(0, program.rfind('/') + 1);
  if (!folder.empty() && folder.back() == '/')
    GTEST_FLAG_SET(output, folder + program + "_as_user.xml");
}

}  // namespace

int main(int argc, char** argv) {
  const bool as_user = argc > 1 && strcmp(argv[1], "--as-user") == 0;
  if (as_user) name_results_of_user(argv[0]);
  ::testing::InitGoogleTest(&argc, argv);
  if ((as_user || geteuid() != 0) && !become_ordinary_user()) {
    puts("lacks user_namespaces");
    return 77;
  }
  if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) {
    perror("unshare: a PID namespace for these tests");
    return 1;
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
