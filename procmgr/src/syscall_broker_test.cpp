// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "caller_memory.h"
#include "ipc/futex_abi.h"
#include "testing/filtered_child.h"

namespace krg {
namespace {

using testing::FilteredChild;

constexpr int kStopped = ECHRNG;  // what the broker answers to every stopped call of a probe

class SyscallBrokerTest : public ::testing::Test {
 protected:
  // Every call that the filter stops fails with kStopped.
  void refuse_everything() {
    for (int number = 0; number < 512; ++number)
      if (number != SYS_execve)
        broker.set_handler(number, [](SyscallBroker::Call call) { call.fail(kStopped); });
  }
  int status_of(std::function<int()> body) {
    FilteredChild child(broker, std::move(body));
    return child.wait_in(loop);
  }
  EventLoop loop = std::move(*EventLoop::create());
  SyscallBroker broker{loop};
};

struct Probe {
  const char* name;
  long number;
  long args[6];
  bool stopped;
};

TEST_F(SyscallBrokerTest, TheFilterStopsWhatNeedsAClusterWideAnswerOnly) {
  refuse_everything();
  static char usage[256];
  const pid_t parent = getpid();
  const pid_t foreign = parent ^ (1 << (kPidBits - 1));
  const Probe probes[] = {
      {"getpid", SYS_getpid, {}, false},
      {"getppid", SYS_getppid, {}, true},
      {"futex", SYS_futex, {reinterpret_cast<long>(usage), FUTEX_WAKE, 1}, false},
      {"shared futex", SYS_futex, {reinterpret_cast<long>(usage), FUTEX_WAIT, 1}, true},
      {"shared futex by a clock",
       SYS_futex,
       {reinterpret_cast<long>(usage), FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 1},
       true},
      {"wake and change",
       SYS_futex,
       {reinterpret_cast<long>(usage), FUTEX_WAKE_OP, 1, 0, reinterpret_cast<long>(usage)},
       false},
      {"private futex",
       SYS_futex,
       {reinterpret_cast<long>(usage), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 1},
       false},
      {"futex_waitv", SYS_futex_waitv, {}, true},
      {"futex_wait, private", kFutexWait, {0, 0, 0, kFutexPrivate | 2}, false},
      {"futex_wait", kFutexWait, {0, 0, 0, 2}, true},
      {"mmap private", SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE, -1, 0}, false},
      {"mmap anonymous", SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0}, true},
      {"mmap shared", SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED, -1, 0}, true},
      {"mmap validated", SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED_VALIDATE, -1, 0}, true},
      {"mmap shared of ours",
       SYS_mmap,
       {0, 4096, PROT_READ, static_cast<long>(kUnnotifiedMapFlags | MAP_SHARED), -1, 0},
       false},
      {"getpgrp", SYS_getpgrp, {}, true},
      {"getpgid", SYS_getpgid, {0}, true},
      {"getsid", SYS_getsid, {parent}, true},
      {"kill local", SYS_kill, {parent, 0}, false},
      {"kill foreign", SYS_kill, {foreign, 0}, true},
      {"kill own group", SYS_kill, {0, 0}, true},
      {"kill group", SYS_kill, {-parent, 0}, true},
      {"kill all", SYS_kill, {-1, 0}, true},
      {"kill -STOP", SYS_kill, {parent, SIGSTOP}, true},
      {"tgkill local", SYS_tgkill, {parent, parent, 0}, false},
      {"tgkill foreign", SYS_tgkill, {foreign, foreign, 0}, true},
      {"tkill foreign", SYS_tkill, {foreign, 0}, true},
      {"pidfd_open local", SYS_pidfd_open, {parent, 0}, false},
      {"pidfd_open foreign", SYS_pidfd_open, {foreign, 0}, true},
      {"getpriority self", SYS_getpriority, {PRIO_PROCESS, 0}, false},
      {"getpriority other", SYS_getpriority, {PRIO_PROCESS, parent}, true},
      {"getpriority own group", SYS_getpriority, {PRIO_PGRP, 0}, true},
      {"prlimit self", SYS_prlimit64, {0, RLIMIT_CORE, 0, 0}, false},
      {"prlimit other", SYS_prlimit64, {parent, RLIMIT_CORE, 0, 0}, true},
      {"sched_getscheduler self", SYS_sched_getscheduler, {0}, false},
      {"sched_getscheduler other", SYS_sched_getscheduler, {parent}, true},
      {"sched_getaffinity", SYS_sched_getaffinity, {0, 128, reinterpret_cast<long>(usage)}, true},
      {"sysinfo", SYS_sysinfo, {reinterpret_cast<long>(usage)}, true},
      {"times", SYS_times, {reinterpret_cast<long>(usage)}, true},
      {"getrusage self", SYS_getrusage, {RUSAGE_SELF, reinterpret_cast<long>(usage)}, false},
      {"getrusage children", SYS_getrusage, {RUSAGE_CHILDREN, reinterpret_cast<long>(usage)}, true},
      {"wait4 without usage", SYS_wait4, {-1, 0, WNOHANG, 0}, false},
      {"wait4 with usage", SYS_wait4, {-1, 0, WNOHANG, reinterpret_cast<long>(usage)}, true},
      {"waitid without usage", SYS_waitid, {P_ALL, 0, 0, WEXITED | WNOHANG, 0}, false},
      {"waitid with usage",
       SYS_waitid,
       {P_ALL, 0, 0, WEXITED | WNOHANG, reinterpret_cast<long>(usage)},
       true},
      {"TIOCGPGRP", SYS_ioctl, {-1, TIOCGPGRP, 0}, true},
      {"TIOCGWINSZ", SYS_ioctl, {-1, TIOCGWINSZ, 0}, false},
  };
  static_assert(std::size(probes) < 100, "the exit status names the failed probe");
  int status = status_of([&] {
    for (size_t i = 0; i < std::size(probes); ++i) {
      const Probe& p = probes[i];
      errno = 0;
      long result = syscall(p.number, p.args[0], p.args[1], p.args[2], p.args[3], p.args[4], 0L);
      if ((result == -1 && errno == kStopped) != p.stopped) return static_cast<int>(i + 1);
    }
    return 0;
  });
  ASSERT_TRUE(WIFEXITED(status));
  int failed = WEXITSTATUS(status);
  EXPECT_EQ(failed, 0) << (failed <= static_cast<int>(std::size(probes)) ? probes[failed - 1].name
                                                                         : "setup");
}

int listener_of_this_process() {
  for (const auto& open : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code closed;
    if (std::filesystem::read_symlink(open.path(), closed) == "anon_inode:seccomp notify")
      return std::stoi(open.path().filename());
  }
  return -1;
}

// A listener is writable while a call has been taken up and not been answered.
bool comes_to_be_taken_up(int listener) {
  pollfd taken{listener, POLLOUT, 0};
  return poll(&taken, 1, 10'000) == 1 && (taken.revents & POLLOUT);
}

// A call that has been taken up is ended by fatal signals only, and it is taken up whatever the
// loop does meanwhile: fork(2) is not to fail with EINTR.
TEST_F(SyscallBrokerTest, SignalsDoNotEndCallsWhileTheLoopIsBusy) {
  constexpr int kCalls = 8;
  int answered = 0;
  broker.set_handler(SYS_getppid, [&](SyscallBroker::Call call) {
    ++answered;
    call.succeed(4242);
  });
  FilteredChild child(broker, [] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    for (int i = 0; i < kCalls; ++i)
      if (syscall(SYS_getppid) != 4242) return 1;
    return 0;
  });
  for (int turns = 0; answered == 0 && turns < 400; ++turns)
    loop.run_once(std::chrono::milliseconds(5));
  for (int i = 1; i < kCalls; ++i) {
    ASSERT_TRUE(comes_to_be_taken_up(listener_of_this_process())) << "though the loop is busy";
    kill(child.pid(), SIGUSR1);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    for (int turns = 0; answered == i && turns < 400; ++turns)
      loop.run_once(std::chrono::milliseconds(5));
    ASSERT_GT(answered, i) << "the call was ended";
  }
  const int status = child.wait_in(loop);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(0, WEXITSTATUS(status));
}

// How often the thread that takes calls up while the loop is busy has waited for one.
int waits_beside_the_loop() {
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(thread.path() / "status");
    std::string word, name;
    int waits = 0;
    while (status >> word) {
      if (word == "Name:") status >> name;
      if (word == "voluntary_ctxt_switches:") status >> waits;
    }
    if (name == "krgd-calls") return waits;
  }
  return -1;
}

// Two switches between threads for each call would make every fork dearer.
TEST_F(SyscallBrokerTest, CallsAreTakenUpByALoopThatWaitsForThem) {
  constexpr int kCalls = 200;
  broker.set_handler(SYS_getppid, [](SyscallBroker::Call call) { call.succeed(4242); });
  FilteredChild child(broker, [] {
    for (int i = 0; i < kCalls; ++i) {
      usleep(500);  // the loop has time to come to its wait
      if (syscall(SYS_getppid) != 4242) return 1;
    }
    return 0;
  });
  const int before = waits_beside_the_loop();
  const int status = child.wait_in(loop);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ASSERT_GE(before, 0);
  EXPECT_LT(waits_beside_the_loop() - before, kCalls * 9 / 10);
}

TEST_F(SyscallBrokerTest, AnswersNowOrLaterOrNotAtAll) {
  EventLoop::Timer later;
  broker.set_handler(SYS_getppid, [](SyscallBroker::Call call) { call.succeed(4242); });
  broker.set_handler(SYS_getpgrp, [&](SyscallBroker::Call call) {
    auto held = std::make_shared<SyscallBroker::Call>(std::move(call));
    later = loop.after(std::chrono::milliseconds(10), [held] { held->succeed(77); });
  });
  broker.set_handler(SYS_times, [](SyscallBroker::Call) {});  // dropped: goes on
  const pid_t session = getsid(0);  // 0 where its leader is outside of this PID namespace
  EXPECT_EQ(0, status_of([session] {
              if (syscall(SYS_getppid) != 4242) return 1;
              if (syscall(SYS_getpgrp) != 77) return 2;
              if (syscall(SYS_times, 0) <= 0) return 3;
              if (syscall(SYS_getsid, 0) != session) return 4;  // no handler
              return 0;
            }));
}

TEST_F(SyscallBrokerTest, AHandledSignalDoesNotInterruptACallInHand) {
  EventLoop::Timer later;
  broker.set_handler(SYS_getpgrp, [&](SyscallBroker::Call call) {
    kill(call.tid(), SIGUSR1);
    auto held = std::make_shared<SyscallBroker::Call>(std::move(call));
    later = loop.after(std::chrono::milliseconds(10), [held] { held->succeed(77); });
  });
  EXPECT_EQ(0, status_of([] {
              static volatile sig_atomic_t handled = 0;
              struct sigaction action {};
              action.sa_handler = [](int) { handled = 1; };
              sigaction(SIGUSR1, &action, nullptr);
              if (syscall(SYS_getpgrp) != 77) return 1;
              return handled ? 0 : 2;
            }));
}

TEST_F(SyscallBrokerTest, ReadsAndWritesTheCallersMemoryAndDescriptors) {
  UniqueFd file(memfd_create("krg-test", MFD_CLOEXEC));
  ASSERT_EQ(write(file.get(), "hello", 5), 5);
  std::string seen;
  broker.set_handler(SYS_ioctl, [&](SyscallBroker::Call call) {
    seen = call.read_string(RemoteAddr{call.arg(2)}, 100).value_or("?");
    EXPECT_FALSE(call.read_string(RemoteAddr{call.arg(2)}, 3));
    EXPECT_FALSE(call.read_memory(RemoteAddr{1}, 1));
    EXPECT_TRUE(call.write_memory(RemoteAddr{call.arg(2)}, "WORLD"));
    EXPECT_TRUE(call.put_fd(file.get(), 77, false));
    EXPECT_TRUE(call.is_valid());
    auto number = call.add_fd(file.get());
    call.succeed(number ? *number : -1);
  });
  EXPECT_EQ(0, status_of([] {
              static char text[] = "world";
              long number = syscall(SYS_ioctl, -1, TIOCGPGRP, text);
              if (strcmp(text, "WORLD") != 0) return 1;
              char got[6] = {};
              if (pread(static_cast<int>(number), got, 5, 0) != 5) return 2;
              if (!(fcntl(static_cast<int>(number), F_GETFD) & FD_CLOEXEC)) return 3;
              if (pread(77, got, 5, 0) != 5 || strcmp(got, "hello") != 0) return 4;
              return fcntl(77, F_GETFD) == 0 ? 0 : 5;
            }));
  EXPECT_EQ(seen, "world");
}

// Memory of a child that the loop must not touch: all that is said to wait, page by page.
struct Elsewhere {
  RemoteAddr page{};
  std::string contents;  // what is brought
  bool is_lost = false;
  int reads = 0;

  MemorySource source() {
    MemorySource made;
    made.waits = [this](pid_t, RemoteAddr at, size_t bytes, bool) {
      return at.value < page.value + kPage && page.value < at.value + bytes;
    };
    made.read = [this](pid_t, RemoteAddr at, size_t bytes, auto done) {
      ++reads;
      EXPECT_EQ(at, page);
      EXPECT_EQ(bytes, kPage);
      is_lost ? done(errno_error("lost", EOWNERDEAD)) : done(contents);
    };
    made.write = [this](pid_t tid, RemoteAddr at, const std::string& bytes, auto done) {
      if (is_lost) return done(errno_error("lost", EOWNERDEAD));
      iovec local{const_cast<char*>(bytes.data()), bytes.size()};
      iovec remote{reinterpret_cast<void*>(at.value), bytes.size()};
      EXPECT_EQ(process_vm_writev(tid, &local, 1, &remote, 1, 0),
                static_cast<ssize_t>(bytes.size()));
      done({});
    };
    return made;
  }
  static constexpr size_t kPage = 4096;
};
struct TwoPages {
  char here[4096], elsewhere[4096];
};
alignas(4096) TwoPages two_pages;

TEST_F(SyscallBrokerTest, MemoryThatTheLoopBringsIsReadBeforeTheCallIsMadeAgain) {
  Elsewhere other{.page = {reinterpret_cast<uint64_t>(two_pages.elsewhere)},
                  .contents = std::string(4096, 'b')};
  broker.add_memory_guard(other.source());
  int calls = 0;
  std::string seen;
  broker.set_handler(SYS_times, [&](SyscallBroker::Call call) {
    ++calls;
    auto read = call.read_memory(RemoteAddr{call.arg(0)}, 8);
    if (!read) return call.fail(EFAULT);
    seen = *read;
    call.succeed(5);
  });
  EXPECT_EQ(0, status_of([] {
              memset(two_pages.here, 'a', sizeof two_pages.here);
              return syscall(SYS_times, two_pages.elsewhere - 4) == 5 ? 0 : 1;
            }));
  EXPECT_EQ(seen, "aaaabbbb");
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(other.reads, 1);

  other.is_lost = true;
  EXPECT_EQ(0, status_of([] {
              return syscall(SYS_times, two_pages.elsewhere) == -1 && errno == EFAULT ? 0 : 1;
            }));
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(other.reads, 2);
  EXPECT_EQ(0, status_of([] { return syscall(SYS_times, 1L) == -1 && errno == EFAULT ? 0 : 1; }))
      << "what is nobody's is not asked for";
  EXPECT_EQ(calls, 4);
}

TEST_F(SyscallBrokerTest, WhatIsWrittenToMemoryThatTheLoopBringsIsThereWhenTheCallSucceeds) {
  Elsewhere other{.page = {reinterpret_cast<uint64_t>(two_pages.elsewhere)}, .contents = {}};
  broker.add_memory_guard(other.source());
  broker.set_handler(SYS_times, [&](SyscallBroker::Call call) {
    EXPECT_TRUE(call.write_memory(RemoteAddr{call.arg(0)}, "overboth"));
    EXPECT_TRUE(call.try_succeed(6));
  });
  EXPECT_EQ(0, status_of([] {
              char* const at = two_pages.elsewhere - 4;
              return syscall(SYS_times, at) == 6 && memcmp(at, "overboth", 8) == 0 ? 0 : 1;
            }));
  other.is_lost = true;
  EXPECT_EQ(0, status_of([] {
              return syscall(SYS_times, two_pages.elsewhere) == -1 && errno == EFAULT ? 0 : 1;
            }));
}

TEST_F(SyscallBrokerTest, SeesExecsButNotUnnotifiedOnes) {
  std::vector<std::string> paths;
  broker.set_handler(SYS_execve, [&](SyscallBroker::Call call) {
    paths.push_back(call.read_string(RemoteAddr{call.arg(0)}, 4096).value_or("?"));
    call.go_on();
  });
  // The shell itself is not seen, what it executes is.
  int status = status_of([] {
    const char* argv[] = {"sh", "-c", "/bin/true; exec /bin/sh -c 'exit 7'", nullptr};
    exec_unnotified("/bin/sh", const_cast<char**>(argv), environ);
    return 1;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(paths, (std::vector<std::string>{"/bin/true", "/bin/sh"}));
}

TEST_F(SyscallBrokerTest, AListenerGoesWithItsLastProcess) {
  EXPECT_EQ(0, status_of([] { return 0; }));
  for (int i = 0; i < 100 && broker.listener_count() > 0; ++i)
    loop.run_once(std::chrono::milliseconds(5));
  EXPECT_EQ(broker.listener_count(), 0u);
}

TEST_F(SyscallBrokerTest, ACallerThatDiesIsNoLongerValid) {
  auto held = std::make_shared<std::optional<SyscallBroker::Call>>();
  broker.set_handler(SYS_getpgrp, [&](SyscallBroker::Call call) {
    kill(call.tid(), SIGKILL);
    held->emplace(std::move(call));
  });
  int status = status_of([] { return syscall(SYS_getpgrp) > 0 ? 0 : 1; });
  EXPECT_TRUE(WIFSIGNALED(status));
  ASSERT_TRUE(held->has_value());
  EXPECT_FALSE((*held)->is_valid());
  (*held)->succeed(1);  // nobody is there: nothing happens
}

}  // namespace
}  // namespace krg
