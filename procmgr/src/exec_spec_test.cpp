// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/exec_spec.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cstring>

#include "testing/filtered_child.h"

namespace krg {
namespace {

using testing::FilteredChild;

ExecSpec example() {
  ExecSpec spec;
  spec.path = "bin/tool";
  spec.cwd = "/somewhere else";
  for (const char* text : {"tool", "", "two words", "-x"}) spec.argv.add(text);
  spec.environment.add("PATH=/bin");
  spec.groups = {4, 24, 70000};
  spec.processors = {0, 5};
  spec.attributes.umask = 027;
  spec.attributes.uids = {1, 2, 3};
  spec.attributes.nice = -5;
  spec.attributes.limits[RLIMIT_NOFILE] = {100, RLIM_INFINITY};
  return spec;
}

TEST(ExecSpec, SurvivesTheWire) {
  const ExecSpec spec = example();
  auto back = ExecSpec::parse(spec.serialize());
  ASSERT_TRUE(back);
  EXPECT_EQ(back->path, spec.path);
  EXPECT_EQ(back->cwd, spec.cwd);
  EXPECT_EQ(back->argv, spec.argv);
  EXPECT_EQ(back->environment, spec.environment);
  EXPECT_EQ(back->groups, spec.groups);
  EXPECT_EQ(back->processors, spec.processors);
  EXPECT_EQ(memcmp(&back->attributes, &spec.attributes, sizeof spec.attributes), 0);
  EXPECT_EQ(back->argv.strings(), (std::vector<std::string>{"tool", "", "two words", "-x"}));
  EXPECT_EQ(back->argv.pointers().size(), 5u);
  EXPECT_STREQ(back->argv.pointers()[2], "two words");
}

TEST(ExecSpec, RefusesWhatIsCutOrOfAnotherVersion) {
  const std::string bytes = example().serialize();
  for (size_t length = 0; length < bytes.size(); ++length)
    EXPECT_FALSE(ExecSpec::parse(std::string_view(bytes).substr(0, length))) << length;
  EXPECT_FALSE(ExecSpec::parse(bytes + "x"));
  std::string other = bytes;
  other[0] = 99;
  EXPECT_FALSE(ExecSpec::parse(other));
}

class ReadExecSpecTest : public ::testing::Test {
 protected:
  // What the first execve of a child that runs `before` and `exec` looks like.
  Result<ExecSpec> spec_of(std::function<void()> before, const char* path = "/bin/true") {
    std::optional<Result<ExecSpec>> spec;
    broker.set_handler(SYS_execve, [&](SyscallBroker::Call call) {
      auto found = read_exec_caller(call.tid());
      ASSERT_TRUE(found);
      caller = *found;
      if (!spec) spec = read_exec_spec(call, caller, -1);
      call.fail(ECANCELED);
    });
    FilteredChild child(broker, [&] {
      before();
      const char* argv[] = {"true", "a b", "", nullptr};
      const char* environment[] = {"X=1", nullptr};
      execve(path, const_cast<char**>(argv), const_cast<char**>(environment));
      return errno == ECANCELED ? 0 : 1;
    });
    EXPECT_EQ(child.wait_in(loop), 0);
    if (!spec) return errno_error("execve was not seen", ENODATA);
    return *spec;
  }
  EventLoop loop = std::move(*EventLoop::create());
  SyscallBroker broker{loop};
  ExecCaller caller;
};

TEST_F(ReadExecSpecTest, SeesWhatExecPassesOn) {
  if (geteuid() != 0) GTEST_SKIP() << "lacks root";
  auto spec = spec_of([] {
    umask(0123);
    if (chdir("/usr/lib") != 0) _exit(9);
    signal(SIGUSR1, SIG_IGN);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_SETMASK, &blocked, nullptr);
    setpriority(PRIO_PROCESS, 0, 7);
    rlimit limit{123, 456};
    setrlimit(RLIMIT_NOFILE, &limit);
    ::personality(ADDR_NO_RANDOMIZE);
    gid_t groups[] = {5, 6};
    if (setgroups(2, groups) != 0 || setresgid(11, 12, 13) != 0 || setresuid(21, 22, 23) != 0)
      _exit(9);
  });
  ASSERT_TRUE(spec) << spec.error().message();
  EXPECT_EQ(spec->path, "/bin/true");
  EXPECT_EQ(spec->cwd, "/usr/lib");
  EXPECT_EQ(spec->argv.strings(), (std::vector<std::string>{"true", "a b", ""}));
  EXPECT_EQ(spec->environment.strings(), (std::vector<std::string>{"X=1"}));
  EXPECT_EQ(spec->groups, (std::vector<gid_t>{5, 6}));
  const ProcessAttributes& a = spec->attributes;
  EXPECT_EQ(a.umask, 0123u);
  EXPECT_EQ(a.uids, (std::array<uid_t, 3>{21, 22, 23}));
  EXPECT_EQ(a.gids, (std::array<gid_t, 3>{11, 12, 13}));
  EXPECT_EQ(a.blocked_signals, uint64_t{1} << (SIGTERM - 1));
  EXPECT_TRUE(a.ignored_signals >> (SIGUSR1 - 1) & 1);
  EXPECT_EQ(a.nice, 7);
  EXPECT_EQ(a.limits[RLIMIT_NOFILE].rlim_cur, 123u);
  EXPECT_EQ(a.limits[RLIMIT_NOFILE].rlim_max, 456u);
  EXPECT_EQ(a.personality, static_cast<uint32_t>(ADDR_NO_RANDOMIZE));
  EXPECT_EQ(a.capabilities_effective, 0u);
  EXPECT_FALSE(caller.has_execed);
  EXPECT_EQ(caller.parent, getpid());
  EXPECT_EQ(caller.group, getpgrp());
}

TEST_F(ReadExecSpecTest, LeavesWhatTheKernelWouldRefuseToIt) {
  EXPECT_EQ(spec_of([] {}, "/nowhere/at/all").error().errno_or(0), ENOENT);
  EXPECT_EQ(spec_of([] {}, "/etc/passwd").error().errno_or(0), EACCES);
  EXPECT_EQ(spec_of([] {}, "/etc").error().errno_or(0), EACCES);
}

TEST_F(ReadExecSpecTest, RefusesWhatCannotBeTakenApart) {
  if (geteuid() != 0) GTEST_SKIP() << "lacks root";
  auto refused = [this](std::function<void()> before, const char* path = "/bin/true") {
    auto spec = spec_of(std::move(before), path);
    return !spec && spec.error().errno_or(0) == ENOTSUP;
  };
  EXPECT_FALSE(refused([] {}));
  EXPECT_TRUE(refused([] {
    if (fork() == 0) {
      alarm(1);  // it outlives its parent
      pause();
      _exit(0);
    }
  })) << "has a child";
  EXPECT_TRUE(refused([] {
    if (chroot("/usr") != 0 || chdir("/") != 0) _exit(9);
  })) << "chroot";
  EXPECT_TRUE(refused([] {
    if (unshare(CLONE_NEWIPC) != 0) _exit(9);
  })) << "namespace";
  EXPECT_TRUE(refused([] {}, "/proc/self/fd/3"));
  EXPECT_FALSE(refused([] {}, "/proc/self/exe")) << "means the program itself";
}

}  // namespace
}  // namespace krg
