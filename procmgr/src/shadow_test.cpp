// SPDX-License-Identifier: GPL-2.0-or-later
#include "shadow.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <deque>
#include <optional>
#include <thread>

#include "image/frozen_process.h"
#include "process_status.h"
#include "testing/filtered_child.h"

namespace krg {
namespace {

using testing::FilteredChild;

// A filtered child whose first stopped execve becomes a shadow.
class ShadowTest : public ::testing::Test {
 protected:
  void SetUp() override {
    program = UniqueFd(open(KRG_SHADOW_PROGRAM, O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(program) << KRG_SHADOW_PROGRAM;
    broker.set_handler(SYS_execve, [this](SyscallBroker::Call call) {
      auto made = Shadow::become_shadow(
          loop, std::move(call), program.get(),
          {[this](const ShadowReport& r) { reports.push_back(r); }, [this] { ended = true; }});
      ASSERT_TRUE(made) << made.error().message();
      shadow = std::move(*made);
      if (on_shadow) on_shadow();
    });
  }
  ShadowReport next_report() {
    for (int i = 0; i < 400 && reports.empty(); ++i) loop.run_once(std::chrono::milliseconds(5));
    if (reports.empty()) return {};
    ShadowReport report = reports.front();
    reports.pop_front();
    return report;
  }
  void run_until_shadow() {
    for (int i = 0; i < 400 && !shadow; ++i) loop.run_once(std::chrono::milliseconds(5));
    ASSERT_TRUE(shadow);
  }

  EventLoop loop = std::move(*EventLoop::create());
  SyscallBroker broker{loop};
  UniqueFd program;
  std::unique_ptr<Shadow> shadow;
  std::deque<ShadowReport> reports;
  std::function<void()> on_shadow;
  bool ended = false;
};

int exec_true() {
  execl("/bin/true", "true", nullptr);
  return 99;
}
int status_or(int status, int otherwise) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : otherwise;
}

TEST_F(ShadowTest, ExitsAndDiesAsTold) {
  on_shadow = [this] { EXPECT_TRUE(shadow->command(ShadowVerb::kExit, 42)); };
  FilteredChild exits(broker, exec_true);
  EXPECT_EQ(status_or(exits.wait_in(loop), -1), 42);
  for (int i = 0; i < 100 && !ended; ++i) loop.run_once(std::chrono::milliseconds(5));
  EXPECT_TRUE(ended);
  for (int signal : {SIGTERM, SIGSEGV, SIGKILL, SIGRTMIN + 3}) {
    on_shadow = [&] { EXPECT_TRUE(shadow->command(ShadowVerb::kDie, signal)); };
    FilteredChild dies(broker, exec_true);
    int status = dies.wait_in(loop);
    ASSERT_TRUE(WIFSIGNALED(status)) << signal;
    EXPECT_EQ(WTERMSIG(status), signal);
    EXPECT_FALSE(WCOREDUMP(status));
  }
}

TEST_F(ShadowTest, PassesSignalsOnEvenThoseSentBeforeOrIgnored) {
  FilteredChild child(broker, [] {
    signal(SIGINT, SIG_IGN);
    signal(SIGUSR1, [](int) { _exit(98); });
    sigset_t early;
    sigemptyset(&early);
    sigaddset(&early, SIGUSR2);
    sigprocmask(SIG_BLOCK, &early, nullptr);
    raise(SIGUSR2);
    return exec_true();
  });
  on_shadow = [&] { kill(child.pid(), SIGUSR1); };  // while it turns into the shadow
  run_until_shadow();
  std::vector<int> seen{next_report().signal, next_report().signal};
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, (std::vector<int>{SIGUSR1, SIGUSR2}));
  kill(child.pid(), SIGINT);
  ShadowReport report = next_report();
  EXPECT_EQ(report.signal, SIGINT);
  EXPECT_EQ(report.code, SI_USER);
  EXPECT_EQ(report.sender, getpid());
  sigval value;
  value.sival_ptr = reinterpret_cast<void*>(0x1234567890);
  sigqueue(child.pid(), SIGTERM, value);
  report = next_report();
  EXPECT_EQ(report.signal, SIGTERM);
  EXPECT_EQ(report.code, SI_QUEUE);
  EXPECT_EQ(report.value, 0x1234567890u);
}

TEST_F(ShadowTest, StopsAndGoesOn) {
  FilteredChild child(broker, [] {
    setpgid(0, 0);  // in an orphaned group SIGTSTP has no effect; ours may be one
    return exec_true();
  });
  run_until_shadow();
  for (int signal : {SIGSTOP, SIGTSTP}) {
    ASSERT_TRUE(shadow->command(ShadowVerb::kStop, signal));
    int status;
    ASSERT_EQ(waitpid(child.pid(), &status, WUNTRACED), child.pid());
    ASSERT_TRUE(WIFSTOPPED(status));
    EXPECT_EQ(WSTOPSIG(status), signal);
    shadow->resume();
    ASSERT_EQ(waitpid(child.pid(), &status, WCONTINUED), child.pid());
    EXPECT_TRUE(WIFCONTINUED(status));
  }
  ASSERT_TRUE(shadow->command(ShadowVerb::kSetGroup, 0));
  next_report();  // it has read the last SIGCONT: signals of one number do not queue
  kill(child.pid(), SIGCONT);
  EXPECT_EQ(next_report().signal, SIGCONT) << "resume() is not passed on, a real SIGCONT is";
}

TEST_F(ShadowTest, AnOrderToStopIsKnownUntilItIsOver) {
  FilteredChild child(broker, [] { return exec_true(); });
  run_until_shadow();
  EXPECT_FALSE(shadow->is_to_stop());
  int status;
  kill(child.pid(), SIGSTOP);  // so that it does not read the order
  ASSERT_EQ(waitpid(child.pid(), &status, WUNTRACED), child.pid());
  ASSERT_TRUE(shadow->command(ShadowVerb::kStop, SIGSTOP));
  EXPECT_TRUE(shadow->is_to_stop());
  shadow->resume();
  ASSERT_EQ(waitpid(child.pid(), &status, WUNTRACED), child.pid()) << "by the order";
  EXPECT_TRUE(shadow->is_to_stop());
  shadow->resume();
  for (int i = 0; i < 400 && shadow->is_to_stop(); ++i) loop.run_once(std::chrono::milliseconds(5));
  EXPECT_FALSE(shadow->is_to_stop());
}

TEST_F(ShadowTest, ChangesItsGroupAndSession) {
  setpgid(0, 0);  // ours may have its leader outside of this PID namespace: no number to name it by
  FilteredChild child(broker, [] { return exec_true(); });
  run_until_shadow();
  ASSERT_TRUE(shadow->command(ShadowVerb::kSetGroup, 0));
  EXPECT_EQ(next_report().result, 0);
  EXPECT_EQ(getpgid(child.pid()), child.pid());
  ASSERT_TRUE(shadow->command(ShadowVerb::kSetSession));
  EXPECT_EQ(next_report().result, -EPERM);  // a group leader
  ASSERT_TRUE(shadow->command(ShadowVerb::kSetGroup, getpgrp()));
  EXPECT_EQ(next_report().result, 0);
  ASSERT_TRUE(shadow->command(ShadowVerb::kSetSession));
  EXPECT_EQ(next_report().result, child.pid());
  EXPECT_EQ(getsid(child.pid()), child.pid());
}

TEST_F(ShadowTest, KeepsNothingOpenButItsControlSocket) {
  FilteredChild child(broker, [] { return exec_true(); });
  run_until_shadow();
  ASSERT_TRUE(shadow->command(ShadowVerb::kSetGroup, 0));
  next_report();  // it runs
  std::string exe(100, '\0');
  std::string proc = "/proc/" + std::to_string(child.pid());
  exe.resize(static_cast<size_t>(readlink((proc + "/exe").c_str(), exe.data(), exe.size())));
  EXPECT_TRUE(exe.ends_with("krg_shadow")) << exe;
  for (int fd = 0; fd < 20; ++fd) {
    bool open = faccessat(AT_FDCWD, (proc + "/fd/" + std::to_string(fd)).c_str(), F_OK,
                          AT_SYMLINK_NOFOLLOW) == 0;
    EXPECT_EQ(open, fd <= 1) << fd;  // the socket and the signalfd
  }
  kill(child.pid(), SIGKILL);
  for (int i = 0; i < 400 && !ended; ++i) loop.run_once(std::chrono::milliseconds(5));
  EXPECT_TRUE(ended);
}

// The parent shares its memory with the child, or at least goes on only when that has exec'ed.
TEST_F(ShadowTest, LeavesTheParentUnharmed) {
  on_shadow = [this] { EXPECT_TRUE(shadow->command(ShadowVerb::kExit, 5)); };
  FilteredChild spawns(broker, [] {
    char* argv[] = {const_cast<char*>("true"), nullptr};
    pid_t pid;
    int status = 0;
    if (posix_spawn(&pid, "/bin/true", nullptr, nullptr, argv, environ) != 0) return 1;
    if (waitpid(pid, &status, 0) != pid || status_or(status, -1) != 5) return 2;
    volatile int canary[64];
    for (int i = 0; i < 64; ++i) canary[i] = i;
    pid = vfork();
    if (pid == 0) {
      execv("/bin/true", argv);
      _exit(99);
    }
    if (waitpid(pid, &status, 0) != pid || status_or(status, -1) != 5) return 3;
    for (int i = 0; i < 64; ++i)
      if (canary[i] != i) return 4;
    struct stat still;
    return fstat(0, &still) == 0 || errno == EBADF ? 0 : 5;
  });
  EXPECT_EQ(status_or(spawns.wait_in(loop), -1), 0);
}

// A process that stands anywhere, with threads, whose descriptors 0 and 1 are open or not.
class FrozenShadowTest : public ShadowTest {
 protected:
  // The shadow of a child that runs `prepare` and then waits (or is stopped), with a second thread.
  pid_t make(const std::function<void()>& prepare, char state = 'S') {
    int ready[2];
    EXPECT_EQ(pipe2(ready, O_CLOEXEC), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      std::thread other([] { pause(); });
      if (state == 'S') prepare();
      close(ready[1]);
      if (state != 'S') prepare();
      for (;;) pause();
    }
    close(ready[1]);
    char byte;
    EXPECT_EQ(read(ready[0], &byte, 1), 0);
    close(ready[0]);
    for (int i = 0; i < 1000 && read_process_status(pid)->state != state; ++i) usleep(1000);
    reaper->watch(pid, [this](const ChildEvent& event) {
      if (event.is_end()) exit_code = event.code == CLD_EXITED ? event.status : 128 + event.status;
    });
    shadow_of(pid);
    return pid;
  }
  void shadow_of(pid_t pid) {
    FrozenProcess::freeze(loop, *reaper, pid, [this](auto frozen) {
      ASSERT_TRUE(frozen) << frozen.error().message();
      auto made = Shadow::become_shadow(
          loop, **frozen, program.get(),
          {[this](const ShadowReport& r) { reports.push_back(r); }, [this] { ended = true; }});
      ASSERT_TRUE(made) << made.error().message();
      shadow = std::move(*made);
    });
    run_until_shadow();
  }
  static bool is_tracee(pid_t pid) { return read_tracer(pid).value_or(0) != 0; }
  int end_of() {
    for (int i = 0; i < 400 && exit_code < 0; ++i) loop.run_once(std::chrono::milliseconds(5));
    return exit_code;
  }

  std::unique_ptr<ChildReaper> reaper = std::move(*ChildReaper::create(loop));
  int exit_code = -1;
};

TEST_F(FrozenShadowTest, IsAShadowAsAnyOther) {
  for (int closed : {0, 1, 2, 3}) {  // a bit for each of the descriptors 0 and 1
    exit_code = -1;
    ended = false;
    shadow.reset();
    const pid_t pid = make([&] {
      if (closed & 1) close(0);
      if (closed & 2) close(1);
      signal(SIGUSR1, [](int) { _exit(98); });
      const itimerval soon{{0, 0}, {10, 0}};  // the body's from now on
      setitimer(ITIMER_REAL, &soon, nullptr);
    });
    kill(pid, SIGUSR1);
    EXPECT_EQ(next_report().signal, SIGUSR1);
    EXPECT_TRUE(shadow->command(ShadowVerb::kExit, 42));
    EXPECT_EQ(end_of(), 42);
    for (int i = 0; i < 100 && !ended; ++i) loop.run_once(std::chrono::milliseconds(5));
    EXPECT_TRUE(ended);
  }
}

TEST_F(FrozenShadowTest, OneThatIsStoppedIsAStoppedShadow) {
  const pid_t pid = make([] { raise(SIGSTOP); }, 'T');
  for (int i = 0; i < 400 && (read_process_status(pid)->state != 'T' || is_tracee(pid)); ++i)
    loop.run_once(std::chrono::milliseconds(5));
  EXPECT_EQ(read_process_status(pid)->state, 'T');
  EXPECT_TRUE(reports.empty());
  shadow->resume();
  EXPECT_TRUE(shadow->command(ShadowVerb::kExit, 42));
  EXPECT_EQ(end_of(), 42);
}

// Who has waited for its stop is told neither that it goes on nor that it has stopped again.
TEST_F(FrozenShadowTest, OneThatIsStoppedStaysSoForItsParent) {
  int pids[2], go[2];
  ASSERT_EQ(pipe2(pids, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(go, O_CLOEXEC), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    const pid_t child = fork();
    if (child == 0) {
      std::thread other([] { pause(); });
      raise(SIGTSTP);
      for (;;) pause();
    }
    int status = 0;
    char byte;
    const bool knows = waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status);
    if (write(pids[1], &child, sizeof child) != sizeof child || read(go[0], &byte, 1) != 1)
      _exit(1);
    const pid_t news = waitpid(child, &status, WUNTRACED | WCONTINUED | WNOHANG);
    if (write(pids[1], &child, sizeof child) != sizeof child) _exit(1);
    const bool goes_on = waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status);
    _exit(!knows ? 2 : news != 0 ? 3 : !goes_on ? 4 : 7);
  }
  std::optional<ChildEvent> end;
  reaper->watch(parent, [&](const ChildEvent& event) {
    if (event.is_end()) end = event;
  });
  pid_t pid = 0;
  ASSERT_EQ(read(pids[0], &pid, sizeof pid), ssize_t{sizeof pid});
  shadow_of(pid);
  const auto is_stopped = [pid] {
    return read_process_status(pid)->state == 'T' && !is_tracee(pid);
  };
  for (int i = 0; i < 400 && !is_stopped(); ++i) loop.run_once(std::chrono::milliseconds(5));
  EXPECT_TRUE(is_stopped());
  EXPECT_NE(read_proc_text(pid, "comm").value_or(""), "shadow_test\n");
  ASSERT_EQ(write(go[1], "x", 1), 1);
  ASSERT_EQ(read(pids[0], &pid, sizeof pid), ssize_t{sizeof pid});
  shadow->resume();
  for (int i = 0; i < 400 && !end; ++i) loop.run_once(std::chrono::milliseconds(5));
  kill(pid, SIGKILL);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->status, 7);
  for (int fd : {pids[0], pids[1], go[0], go[1]}) close(fd);
}

TEST_F(FrozenShadowTest, OneThatCannotBecomeAShadowIsAsBefore) {
  const pid_t pid = fork();
  if (pid == 0) {  // a program that no sanitizer is in: it would want descriptors
    execl("/bin/sleep", "sleep", "1000", nullptr);
    _exit(99);
  }
  reaper->watch(pid, [this](const ChildEvent& event) {
    if (event.is_end()) exit_code = event.code == CLD_EXITED ? event.status : 128 + event.status;
  });
  const auto sleeps = [pid] {
    return read_proc_text(pid, "comm").value_or("") == "sleep\n" &&
           read_process_status(pid)->state == 'S';
  };
  for (int i = 0; i < 1000 && !sleeps(); ++i) usleep(1000);
  const rlimit none{3, 3};
  ASSERT_EQ(prlimit(pid, RLIMIT_NOFILE, &none, nullptr), 0);
  int error = 0;
  FrozenProcess::freeze(loop, *reaper, pid, [&](auto frozen) {
    ASSERT_TRUE(frozen);
    auto made = Shadow::become_shadow(loop, **frozen, program.get(), {[](const auto&) {}, [] {}});
    error = made ? 0 : made.error().errno_or(-1);
    EXPECT_TRUE((*frozen)->is_alive());
  });
  for (int i = 0; i < 400 && error == 0; ++i) loop.run_once(std::chrono::milliseconds(5));
  EXPECT_EQ(error, EMFILE);
  for (int i = 0; i < 1000 && read_process_status(pid)->state != 'S'; ++i) usleep(1000);
  EXPECT_EQ(read_process_status(pid)->state, 'S');
  kill(pid, SIGTERM);
  EXPECT_EQ(end_of(), 128 + SIGTERM);
}

}  // namespace
}  // namespace krg
