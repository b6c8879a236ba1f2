// Real processes, forked and exec'd, as root or in a user namespace as an ordinary user.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/capability_table.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "krg/procmgr/known_forkers.h"
#include "krg/runtime/unique_fd.h"
#include "slack_tag.h"

namespace krg {
namespace {

using std::chrono::milliseconds;

constexpr CapabilitySet kChange = capability_set({Capability::kChangeKerrighedCap});
constexpr CapabilitySet kChangeAndFork =
    capability_set({Capability::kChangeKerrighedCap, Capability::kDistantFork});

// A shell that does what it is told, a line at a time; it leads a group that dies with the test.
class Shell {
 public:
  Shell() {
    int to[2], from[2];
    EXPECT_EQ(pipe2(to, O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(from, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      setpgid(0, 0);
      dup2(to[0], STDIN_FILENO);
      dup2(from[1], STDOUT_FILENO);
      execl("/bin/sh", "sh", nullptr);
      _exit(127);
    }
    close(to[0]);
    close(from[1]);
    to_ = UniqueFd(to[1]);
    from_ = fdopen(from[0], "r");
    ask("echo ready");
  }
  ~Shell() {
    kill(-pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    fclose(from_);
  }
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;

  pid_t pid() const { return pid_; }
  // Runs a line that prints one line, a pid or a word; returns what it printed as a number.
  pid_t ask(const std::string& line) {
    EXPECT_EQ(write(to_.get(), (line + "\n").data(), line.size() + 1), ssize_t(line.size() + 1));
    char answer[128] = "";
    EXPECT_NE(fgets(answer, sizeof answer, from_), nullptr);
    return atoi(answer);
  }

 private:
  pid_t pid_;
  UniqueFd to_;
  FILE* from_;
};

class CapabilityTableTest : public testing::Test {
 protected:
  void SetUp() override {
    Result<EventLoop> loop = EventLoop::create();
    ASSERT_TRUE(loop);
    loop_.emplace(*std::move(loop));
    table_.emplace(*loop_);
    Shell probe;
    if (Status tagged = write_slack_tag(probe.pid(), 1); !tagged)
      GTEST_SKIP() << "lacks timer_slack: " << tagged.error().message();
  }
  CapabilitySets of(pid_t pid) {
    Result<CapabilitySets> sets = table_->of(pid);
    EXPECT_TRUE(sets);
    return sets ? *sets : CapabilitySets{};
  }
  static constexpr const char* kSleeper = "sleep 60 >/dev/null & echo $!";

  std::optional<EventLoop> loop_;
  std::optional<CapabilityTable> table_;
};

TEST_F(CapabilityTableTest, AProcessThatNobodyTouchedHasTheInitialSets) {
  Shell shell;
  EXPECT_EQ(of(shell.pid()), initial_capabilities());
  EXPECT_FALSE(table_->any_distant_fork());
}

TEST_F(CapabilityTableTest, EffectiveIsNotInherited) {
  Shell shell;
  ASSERT_TRUE(table_->change(shell.pid(), {.effective = kChangeAndFork}));
  EXPECT_TRUE(table_->any_distant_fork());
  EXPECT_EQ(of(shell.pid()).effective, kChangeAndFork);
  pid_t child = shell.ask(kSleeper);
  EXPECT_EQ(of(child), initial_capabilities());
}

TEST_F(CapabilityTableTest, InheritableEffectiveReachesDescendantsOnly) {
  Shell shell;
  pid_t older = shell.ask(kSleeper);
  ASSERT_TRUE(table_->change(shell.pid(), {.inheritable_effective = kChangeAndFork}));
  EXPECT_TRUE(table_->any_distant_fork());
  EXPECT_EQ(of(shell.pid()).effective, kChange);
  EXPECT_EQ(of(shell.ask(kSleeper)).effective, kChangeAndFork) << "forked and exec'd";
  EXPECT_EQ(of(shell.ask("sh -c 'sleep 60 >/dev/null & echo $!; wait'")).effective, kChangeAndFork)
      << "a grandchild";
  EXPECT_EQ(of(older).effective, kChange) << "a child born before";
}

TEST_F(CapabilityTableTest, AnOrphanKeepsWhatItInherited) {
  Shell shell;
  ASSERT_TRUE(table_->change(shell.pid(), {.inheritable_effective = kChangeAndFork}));
  pid_t orphan = shell.ask("sh -c 'sh -c \"sleep 60 >/dev/null & echo \\$!\"'");
  EXPECT_EQ(of(orphan).effective, kChangeAndFork);
  auto forker = KnownForkers(*table_).of_child(orphan, 1);
  ASSERT_TRUE(forker);
  EXPECT_EQ(forker->sets.effective, kChangeAndFork);
}

TEST_F(CapabilityTableTest, EachChangeHoldsForTheChildrenThatFollow) {
  Shell shell;
  ASSERT_TRUE(table_->change(shell.pid(), {.inheritable_effective = kChangeAndFork}));
  pid_t first = shell.ask(kSleeper);
  ASSERT_TRUE(table_->change(shell.pid(), {.inheritable_effective = CapabilitySet{}}));
  pid_t second = shell.ask(kSleeper);
  EXPECT_EQ(of(first).effective, kChangeAndFork);
  EXPECT_EQ(of(second).effective, CapabilitySet{});
  EXPECT_EQ(of(second).permitted, kSupportedCapabilities);
}

TEST_F(CapabilityTableTest, ForkerIsTheParentWhileItLives) {
  Shell shell;
  ASSERT_TRUE(table_->change(shell.pid(), {.effective = kChangeAndFork}));
  pid_t child = shell.ask(kSleeper);
  auto forker = KnownForkers(*table_).of_child(child, shell.pid());
  ASSERT_TRUE(forker);
  EXPECT_EQ(forker->sets.effective, kChangeAndFork);
}

TEST_F(CapabilityTableTest, WhatIsKnownOfAForkerFollowsItsChanges) {
  KnownForkers forkers(*table_);
  pid_t pid = 0;
  {
    Shell shell;
    pid = shell.pid();
    for (int again = 0; again < 2; ++again) {
      auto before = forkers.of(pid);
      ASSERT_TRUE(before);
      EXPECT_EQ(before->pid, pid);
      EXPECT_EQ(before->sets.effective, kChange);
      struct stat file {};
      ASSERT_EQ(stat(fmt::format("/proc/{}/exe", pid).c_str(), &file), 0);
      EXPECT_EQ(before->program, (KnownForkers::Program{file.st_dev, file.st_ino}));
    }
    ASSERT_TRUE(table_->change(pid, {.effective = kChangeAndFork}));
    auto after = forkers.of(pid);
    ASSERT_TRUE(after);
    EXPECT_EQ(after->sets.effective, kChangeAndFork);
  }
  EXPECT_FALSE(forkers.of(pid)) << "it has ended";
}

TEST_F(CapabilityTableTest, AnEntryGoesWithItsProcess) {
  {
    Shell shell;
    ASSERT_TRUE(table_->change(shell.pid(), {.effective = kChangeAndFork}));
    ASSERT_TRUE(table_->any_distant_fork());
  }
  loop_->run_once(milliseconds(1000));
  EXPECT_FALSE(table_->any_distant_fork());
}

TEST_F(CapabilityTableTest, AdoptedSetsNeedNoRules) {
  Shell shell;
  CapabilitySets none{};
  ASSERT_TRUE(table_->adopt(shell.pid(), none));
  EXPECT_EQ(of(shell.pid()), none);
  Status refused = table_->change(shell.pid(), {.effective = kChange});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().errno_or(0), EINVAL);
  EXPECT_EQ(of(shell.ask(kSleeper)), none);
}

TEST_F(CapabilityTableTest, WhatIsInUseIsBusy) {
  Shell shell;
  ASSERT_TRUE(table_->change(shell.pid(), {.effective = kChangeAndFork}));
  {
    CapabilityTable::Use use(*table_, shell.pid(), Capability::kDistantFork);
    Status busy = table_->change(shell.pid(), {.effective = kChange});
    ASSERT_FALSE(busy);
    EXPECT_EQ(busy.error().errno_or(0), EBUSY);
  }
  EXPECT_TRUE(table_->change(shell.pid(), {.effective = kChange}));
}

TEST_F(CapabilityTableTest, GoneProcessesAndInitAreRefused) {
  EXPECT_EQ(table_->change(1, {.effective = kChange}).error().errno_or(0), EPERM);
  pid_t gone;
  {
    Shell shell;
    gone = shell.pid();
  }
  EXPECT_EQ(table_->of(gone).error().errno_or(0), ESRCH);
  EXPECT_EQ(read_slack_tag(gone).error().context, "it has ended");
  EXPECT_EQ(table_->change(gone, {.effective = kChange}).error().errno_or(0), ESRCH);
}

TEST_F(CapabilityTableTest, ChildrenOfEveryThreadInherit) {
  int out[2], go[2];
  ASSERT_EQ(pipe2(out, 0), 0);
  ASSERT_EQ(pipe2(go, 0), 0);
  pid_t process = fork();
  if (process == 0) {
    std::thread forker([&] {
      char byte = 'r';
      if (write(out[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1) _exit(1);
      pid_t child = fork();
      if (child == 0) pause();
      if (write(out[1], &child, sizeof child) != sizeof child) _exit(1);
    });
    forker.join();
    pause();
  }
  char byte;
  ASSERT_EQ(read(out[0], &byte, 1), 1);
  ASSERT_TRUE(table_->change(process, {.inheritable_effective = kChangeAndFork}));
  ASSERT_EQ(write(go[1], &byte, 1), 1);
  pid_t child = -1;
  ASSERT_EQ(read(out[0], &child, sizeof child), ssize_t(sizeof child));
  EXPECT_EQ(of(child).effective, kChangeAndFork);
  for (pid_t pid : {child, process}) kill(pid, SIGKILL);
  waitpid(process, nullptr, 0);
  for (int fd : {out[0], out[1], go[0], go[1]}) close(fd);
}

bool write_file(const char* path, const std::string& text) {
  UniqueFd fd(open(path, O_WRONLY | O_CLOEXEC));
  return fd && write(fd.get(), text.data(), text.size()) == ssize_t(text.size());
}

// Becomes an ordinary user that is root in a user namespace of its own. Returns false where the
// kernel forbids that.
bool enter_user_namespace_as_ordinary_user() {
  constexpr uid_t kNobody = 65534;
  if (geteuid() == 0 && (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
                         setresuid(kNobody, kNobody, kNobody) != 0))
    return false;
  prctl(PR_SET_DUMPABLE, 1);  // else /proc/self belongs to root after setresuid (proc(5))
  uid_t uid = geteuid();
  gid_t gid = getegid();
  return unshare(CLONE_NEWUSER) == 0 && write_file("/proc/self/setgroups", "deny") &&
         write_file("/proc/self/uid_map", fmt::format("0 {} 1", uid)) &&
         write_file("/proc/self/gid_map", fmt::format("0 {} 1", gid));
}

TEST_F(CapabilityTableTest, WorksForAnOrdinaryUserInAUserNamespace) {
  constexpr int kUnavailable = 2;
  pid_t user = fork();
  if (user == 0) {
    if (!enter_user_namespace_as_ordinary_user()) _exit(kUnavailable);
    bool inherited = false;
    {
      Shell shell;
      bool changed{table_->change(shell.pid(), {.inheritable_effective = kChangeAndFork})};
      inherited = changed && of(shell.ask(kSleeper)).effective == kChangeAndFork;
    }
    _exit(inherited ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(user, &status, 0), user);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kUnavailable) GTEST_SKIP() << "lacks user_namespaces";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace krg
