// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/frozen_process.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <cstddef>
#include <cstring>
#include <thread>

#include "image/testing/frozen_process_fixture.h"
#include "krg/runtime/unique_fd.h"
#include "process_status.h"

namespace krg {
namespace {

using testing::FrozenProcessTest;
using testing::Shared;

TEST_F(FrozenProcessTest, OneThatRunsStandsStillAndGoesOn) {
  const pid_t pid = start([&] {
    while (!shared->go_on) ++shared->count;
    return 7;
  });
  ASSERT_TRUE(is_counting());
  for (int round = 0; round < 3; ++round) {
    auto frozen = freeze(pid);
    ASSERT_TRUE(frozen) << frozen.error().message();
    const uint64_t count = shared->count;
    EXPECT_EQ((*frozen)->call(SYS_getpid, {}), pid);
    EXPECT_EQ((*frozen)->call(SYS_close, {999}), -EBADF);
    usleep(2000);
    EXPECT_EQ(shared->count, count);
    frozen = errno_error("let go");
    EXPECT_TRUE(is_counting());
  }
  shared->go_on = true;
  EXPECT_EQ(end_of(pid), 7);
}

TEST_F(FrozenProcessTest, AllThreadsStandStill) {
  const pid_t pid = start([&] {
    std::vector<std::thread> threads;
    for (int i = 0; i < 20; ++i)
      threads.emplace_back([&] {
        while (!shared->go_on) ++shared->others;
      });
    while (!shared->go_on) {  // threads come and go
      std::thread([&] { ++shared->count; }).join();
    }
    for (auto& thread : threads) thread.join();
    return 0;
  });
  ASSERT_TRUE(run_until([&] { return shared->count > 20; }));
  for (int round = 0; round < 10; ++round) {
    auto frozen = freeze(pid);
    ASSERT_TRUE(frozen) << frozen.error().message();
    EXPECT_GE((*frozen)->threads().size(), 21u);
    const uint64_t count = shared->count, others = shared->others;
    for (const auto& thread : (*frozen)->threads())
      EXPECT_EQ((*frozen)->call_in(*thread, SYS_gettid, {}), thread->tid());
    EXPECT_EQ(shared->count, count);
    EXPECT_EQ(shared->others, others);
  }
  shared->go_on = true;
  EXPECT_EQ(end_of(pid), 0);
}

// Each is in the call when it is frozen, runs calls for krgd, and finds nothing of that.
TEST_F(FrozenProcessTest, ACallInProgressGoesOn) {
  int pipes[2];
  ASSERT_EQ(pipe2(pipes, O_CLOEXEC), 0);
  const auto sleeper = [] {
    timespec left{0, 200'000'000};
    return nanosleep(&left, &left) == 0 ? 0 : errno;
  };
  const auto reader = [&] {
    char byte;
    return read(pipes[0], &byte, 1) == 1 ? 0 : errno;
  };
  const auto poller = [&] {
    epoll_event event{EPOLLIN, {}};
    const int epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event);
    return epoll_wait(epoll, &event, 1, -1) == 1 ? 0 : errno;
  };
  const auto waiter = [] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    return sigwaitinfo(&set, nullptr) == SIGUSR1 ? 0 : errno;
  };
  std::vector<pid_t> pids;
  for (const std::function<int()>& program :
       std::vector<std::function<int()>>{sleeper, reader, poller, waiter}) {
    const pid_t pid = start([&] {
      shared->value = 1;
      return program();
    });
    ASSERT_TRUE(run_until([&] { return shared->value.exchange(0) == 1; }));
    ASSERT_TRUE(run_until([&] { return read_process_status(pid)->state == 'S'; }));
    auto frozen = freeze(pid);
    ASSERT_TRUE(frozen) << frozen.error().message();
    EXPECT_EQ((*frozen)->call(SYS_getpid, {}), pid);
    pids.push_back(pid);
  }
  EXPECT_EQ(end_of(pids[0]), 0);
  kill(pids[3], SIGUSR1);
  EXPECT_EQ(end_of(pids[3]), 0);
  ASSERT_EQ(write(pipes[1], "a", 1), 1);
  ASSERT_EQ(write(pipes[1], "a", 1), 1);
  EXPECT_EQ(end_of(pids[1]), 0);
  EXPECT_EQ(end_of(pids[2]), 0);
  close(pipes[0]);
  close(pipes[1]);
}

TEST_F(FrozenProcessTest, ASignalThatCameMeanwhileInterruptsAsItWould) {
  const pid_t pid = start([&] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    shared->value = 1;
    pause();
    return errno == EINTR ? 0 : 1;
  });
  ASSERT_TRUE(run_until([&] { return shared->value == 1; }));
  ASSERT_TRUE(run_until([&] { return read_process_status(pid)->state == 'S'; }));
  {
    auto frozen = freeze(pid);
    ASSERT_TRUE(frozen);
    kill(pid, SIGUSR1);
    EXPECT_EQ((*frozen)->call(SYS_getpid, {}), pid);
  }
  EXPECT_EQ(end_of(pid), 0);
}

TEST_F(FrozenProcessTest, OneThatIsStoppedStaysSo) {
  const pid_t pid = start([&] {
    for (;;) ++shared->count;
    return 0;
  });
  ASSERT_TRUE(is_counting());
  kill(pid, SIGSTOP);
  ASSERT_TRUE(run_until([&] { return read_process_status(pid)->state == 'T'; }));
  uint64_t count = 0;
  {
    auto frozen = freeze(pid);
    ASSERT_TRUE(frozen);
    EXPECT_EQ((*frozen)->main().stop_signal(), SIGSTOP);
    EXPECT_EQ((*frozen)->call(SYS_getpid, {}), pid);
    count = shared->count;
  }
  EXPECT_TRUE(run_until([&] { return read_process_status(pid)->state == 'T'; }));
  EXPECT_EQ(shared->count, count);
  kill(pid, SIGCONT);
  EXPECT_TRUE(is_counting());
}

TEST_F(FrozenProcessTest, OneThatIsKilledMeanwhileIsTold) {
  const pid_t pid = start([&] {
    std::thread other([] { pause(); });
    shared->value = 1;
    pause();
    return 0;
  });
  ASSERT_TRUE(run_until([&] { return shared->value == 1; }));
  auto frozen = freeze(pid);
  ASSERT_TRUE(frozen);
  EXPECT_EQ((*frozen)->threads().size(), 2u);
  bool told = false;
  (*frozen)->on_end([&] { told = true; });
  kill(pid, SIGKILL);
  EXPECT_EQ((*frozen)->call(SYS_getpid, {}), -ESRCH);
  EXPECT_EQ(end_of(pid), 128 + SIGKILL);
  EXPECT_TRUE(told);
  EXPECT_FALSE((*frozen)->is_alive());
  EXPECT_EQ(freeze(pid).error().errno_or(0), ESRCH);
}

// A thread in vfork stops only when its child is done.
TEST_F(FrozenProcessTest, OneThatDoesNotStopRunsOn) {
  const pid_t pid = start([&] {
    const pid_t child = vfork();
    if (child == 0) {
      shared->value = static_cast<uint64_t>(getpid());
      while (!shared->go_on) {
      }
      _exit(0);
    }
    int status;
    return waitpid(child, &status, 0) == child ? status : 1;
  });
  ASSERT_TRUE(run_until([&] { return shared->value != 0; }));
  // The second attempt finds it asked to stop already.
  for (int expected : {ETIMEDOUT, EBUSY}) {
    std::optional<int> error;
    FrozenProcess::freeze(
        loop, *reaper, pid, [&](auto frozen) { error = frozen ? 0 : frozen.error().errno_or(-1); },
        std::chrono::milliseconds(50));
    ASSERT_TRUE(run_until([&] { return error.has_value(); }));
    EXPECT_EQ(error, expected);
  }
  shared->go_on = true;
  EXPECT_EQ(end_of(pid), 0);
}

TEST_F(FrozenProcessTest, OneWhoseMainThreadHasEndedIsRefused) {
  const pid_t pid = start([&] {
    std::thread([&] {
      while (!shared->go_on) ++shared->count;
      _exit(3);
    }).detach();
    syscall(SYS_exit, 0);
    return 0;
  });
  ASSERT_TRUE(run_until([&] { return read_process_status(pid)->is_zombie(); }));
  auto frozen = freeze(pid);
  ASSERT_FALSE(frozen);
  EXPECT_EQ(frozen.error().errno_or(0), ENOTSUP);
  EXPECT_TRUE(is_counting());
  shared->go_on = true;
  EXPECT_EQ(end_of(pid), 3);
}

// A userfaultfd of that page, or none where the kernel would not have it wait in a system call.
UniqueFd watch_page(void* page) {
  UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
  uffdio_register range{.range = {reinterpret_cast<uint64_t>(page), 4096},
                        .mode = UFFDIO_REGISTER_MODE_MISSING,
                        .ioctls = 0};
  const bool watches =
      fd && ioctl(fd.get(), UFFDIO_API, &api) == 0 && ioctl(fd.get(), UFFDIO_REGISTER, &range) == 0;
  return watches ? std::move(fd) : UniqueFd();
}

// Its main thread has ended before another one, which waits for a pipe's lock, not to be
// interrupted: who has the lock waits for memory that the test brings.
TEST_F(FrozenProcessTest, OneThatIsEndingAsAWholeIsNoProcess) {
  char* page = static_cast<char*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(page, MAP_FAILED);
  const UniqueFd userfault = watch_page(page);
  if (!userfault) GTEST_SKIP() << "lacks userfaultfd: " << strerror(errno);
  int pipes[2];
  ASSERT_EQ(pipe2(pipes, O_CLOEXEC), 0);
  std::thread holder([&] { EXPECT_EQ(write(pipes[1], page, 1), 1); });
  uffd_msg fault;
  EXPECT_TRUE(
      run_until([&] { return read(userfault.get(), &fault, sizeof fault) == sizeof fault; }));
  const pid_t pid = start([&] {
    std::thread([&] {
      shared->value = static_cast<uint64_t>(gettid());
      static_cast<void>(!write(pipes[1], "a", 1));
    }).detach();
    while (!shared->go_on) usleep(1000);
    return 5;
  });
  EXPECT_TRUE(run_until([&] {
    const auto tid = static_cast<pid_t>(shared->value);
    return tid != 0 && read_process_status(tid)->state == 'D';
  }));
  shared->go_on = true;
  EXPECT_TRUE(run_until([&] { return read_process_status(pid)->is_zombie(); }));
  std::optional<Result<std::shared_ptr<FrozenProcess>>> outcome;
  FrozenProcess::freeze(loop, *reaper, pid, [&](auto frozen) { outcome = std::move(frozen); });
  for (int turn = 0; turn < 10; ++turn) loop.run_once(std::chrono::milliseconds(1));
  EXPECT_FALSE(outcome.has_value());
  uffdio_zeropage zeros{};
  zeros.range = {reinterpret_cast<uint64_t>(page), 4096};
  EXPECT_EQ(ioctl(userfault.get(), UFFDIO_ZEROPAGE, &zeros), 0);
  holder.join();
  EXPECT_TRUE(run_until([&] { return outcome.has_value(); }));
  ASSERT_FALSE(*outcome);
  EXPECT_EQ(outcome->error().errno_or(0), ESRCH);
  EXPECT_EQ(end_of(pid), 5);
  close(pipes[0]);
  close(pipes[1]);
  munmap(page, 4096);
}

TEST_F(FrozenProcessTest, ItsPagesOutliveItInAPageSource) {
  static int value = 0;
  prctl(PR_SET_CHILD_SUBREAPER, 1);  // as krgd is init in its session
  const pid_t pid = start([&] {
    value = 42;
    shared->value = 1;
    pause();
    return 0;
  });
  ASSERT_TRUE(run_until([&] { return shared->value == 1; }));
  auto frozen = freeze(pid);
  ASSERT_TRUE(frozen);
  auto source = (*frozen)->clone_page_source();
  ASSERT_TRUE(source) << source.error().message();
  int there = 0;
  const iovec local{&there, sizeof there}, remote{&value, sizeof value};
  EXPECT_EQ((*frozen)->call(SYS_wait4, {~0ULL, 0, 0, 0}), -ECHILD) << "it is nobody's child";
  kill(pid, SIGKILL);
  EXPECT_EQ(end_of(pid), 128 + SIGKILL);
  EXPECT_EQ(process_vm_readv(*source, &local, 1, &remote, 1, 0), ssize_t(sizeof there));
  EXPECT_EQ(there, 42);
  kill(*source, SIGKILL);
  EXPECT_TRUE(run_until([&] { return kill(*source, 0) != 0; }));
}

// Whoever lets it go, and whatever handles its signals: none of the program's code runs in it.
TEST_F(FrozenProcessTest, APageSourceThatIsLetGoEnds) {
  static Shared* counts = nullptr;
  counts = shared;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const pid_t pid = start([&] {
    static char stack[65536];
    const stack_t alternate{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof stack};
    struct sigaction handling {};
    handling.sa_handler = [](int) { ++counts->others; };
    handling.sa_flags = SA_ONSTACK;
    sigaltstack(&alternate, nullptr);
    sigaction(SIGSEGV, &handling, nullptr);
    shared->value = 1;
    for (;;) ++shared->count;
    return 0;
  });
  ASSERT_TRUE(is_counting());
  auto frozen = freeze(pid);
  ASSERT_TRUE(frozen);
  const uint64_t count = shared->count;
  for (const auto how : {FrozenProcess::PageSource::kShared, FrozenProcess::PageSource::kCopy}) {
    auto source = (*frozen)->clone_page_source(how);
    ASSERT_TRUE(source) << source.error().message();
    watch(*source);
    EXPECT_EQ(ptrace(PTRACE_DETACH, *source, nullptr, nullptr), 0);
    EXPECT_EQ(end_of(*source), 0);
  }
  EXPECT_EQ(shared->count, count);
  EXPECT_EQ(shared->others, 0u);
}

// Its copy on another node may be the process already.
TEST_F(FrozenProcessTest, ItDiesWithWhoHoldsIt) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const pid_t holder = start([&] {
    const pid_t held = fork();
    if (held == 0)
      for (;;) ++shared->count;
    auto own_loop = EventLoop::create();
    auto own_reaper = ChildReaper::create(*own_loop);
    std::shared_ptr<FrozenProcess> frozen;
    FrozenProcess::freeze(*own_loop, **own_reaper, held, [&](auto done) { frozen = *done; });
    while (!frozen) own_loop->run_once(std::chrono::milliseconds(5));
    shared->others = shared->count.load();
    shared->value = static_cast<uint64_t>(held);
    for (;;) pause();
    return 0;
  });
  ASSERT_TRUE(run_until([&] { return shared->value != 0; }));
  const auto held = static_cast<pid_t>(shared->value);
  watch(held);
  kill(holder, SIGKILL);
  const int end = end_of(held);
  if (end < 0) kill(held, SIGKILL);
  EXPECT_EQ(end, 128 + SIGKILL);
  EXPECT_EQ(shared->count, shared->others);
}

// Stays in a restartable sequence until `go_on`, but for the moments in which it has just been
// taken out of it. Says where the sequence is.
int stay_in_sequence(std::atomic<uint64_t>* bounds, const std::atomic<bool>* go_on) {
  auto* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
  uint64_t start, end;
  asm volatile(
      ".pushsection .data.rel, \"aw\"\n"
      ".balign 32\n"
      "9: .long 0, 0\n"  // struct rseq_cs
      ".quad 1f, 2f - 1f, 4f\n"
      ".popsection\n"
      "leaq 1f(%%rip), %0\n"
      "leaq 2f(%%rip), %1\n"
      "movq %0, 0(%2)\n"
      "movq %1, 8(%2)\n"
      "0: leaq 9b(%%rip), %0\n"
      "movq %0, 8(%3)\n"
      "1: cmpb $0, (%4)\n"
      "je 1b\n"
      "2: jmp 5f\n"
      ".byte 0x0f, 0xb9, 0x3d\n"  // the signature before where it is left to
      ".long 0x53053053\n"
      "4: jmp 0b\n"
      "5:\n"
      : "=&r"(start), "=&r"(end)
      : "r"(bounds), "r"(area), "r"(go_on)
      : "memory", "cc");
  return 0;
}

TEST_F(FrozenProcessTest, ARestartableSequenceIsLeft) {
  if (__rseq_size == 0) GTEST_SKIP() << "lacks rseq: not registered by the C library";
  auto* bounds = &shared->count;  // and others
  static_assert(offsetof(Shared, others) == offsetof(Shared, count) + 8);
  const pid_t pid = start([&] { return stay_in_sequence(bounds, &shared->go_on); });
  ASSERT_TRUE(run_until([&] { return shared->others != 0; }));
  for (int round = 0; round < 20; ++round) {
    auto frozen = freeze(pid);
    ASSERT_TRUE(frozen);
    const uint64_t at = (*frozen)->main().registers().rip;
    EXPECT_TRUE(at < shared->count || at >= shared->others);
    EXPECT_EQ((*frozen)->call(SYS_getpid, {}), pid);
  }
  shared->go_on = true;
  EXPECT_EQ(end_of(pid), 0);
}

}  // namespace
}  // namespace krg
