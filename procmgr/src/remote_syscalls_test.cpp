// SPDX-License-Identifier: GPL-2.0-or-later
#include "remote_syscalls.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include "testing/filtered_child.h"

namespace krg {
namespace {

using testing::FilteredChild;

class RemoteSyscallsTest : public ::testing::Test {
 protected:
  // Runs `program` under the filter; its exit status, 128 + signal, or -1 when it hangs.
  int run(std::function<int()> program) {
    FilteredChild child(broker_, std::move(program));
    int exit_code = -1;
    reaper_->watch(child.pid(), [&](const ChildEvent& event) {
      if (event.is_end()) exit_code = event.code == CLD_EXITED ? event.status : 128 + event.status;
    });
    for (int turns = 0; turns < 1000 && exit_code < 0; ++turns)
      loop_.run_once(std::chrono::milliseconds(5));
    return exit_code;
  }
  // What happens with each stopped mmap.
  void on_mmap(RemoteSyscalls::Borrowed borrowed) {
    broker_.set_handler(SYS_mmap, [this, borrowed](SyscallBroker::Call call) {
      auto asked = RemoteSyscalls::borrow(*reaper_, call, borrowed);
      EXPECT_TRUE(asked) << asked.error().message();
    });
  }

  EventLoop loop_ = std::move(*EventLoop::create());
  std::unique_ptr<ChildReaper> reaper_ = std::move(*ChildReaper::create(loop_));
  SyscallBroker broker_{loop_};
};

void* map_shared() {
  return mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, -1, 0);
}

TEST_F(RemoteSyscallsTest, RunsCallsInTheProcessAndSaysWhatItsOwnReturns) {
  pid_t pid_there = 0, caller = 0;
  on_mmap([&](Result<std::shared_ptr<RemoteSyscalls>> borrowed) {
    ASSERT_TRUE(borrowed);
    auto calls = *borrowed;
    caller = calls->tid();
    calls->run(SYS_getpid, {}, [&, calls](int64_t pid) {
      pid_there = static_cast<pid_t>(pid);
      const uint64_t flags = MAP_PRIVATE | MAP_ANONYMOUS;
      calls->run(SYS_mmap, {0, 8192, PROT_READ | PROT_WRITE, flags, ~0ULL, 0},
                 [calls](int64_t address) { calls->set_result(address); });
    });
  });
  EXPECT_EQ(0, run([] {
              for (int i = 0; i < 3; ++i) {
                void* memory = map_shared();
                if (memory == MAP_FAILED) return 1;
                memset(memory, 1, 8192);
              }
              return 0;
            }));
  EXPECT_EQ(pid_there, caller);
}

TEST_F(RemoteSyscallsTest, ACallThatNobodyAnsweredFailsWithEintr) {
  on_mmap([](const Result<std::shared_ptr<RemoteSyscalls>>& borrowed) { EXPECT_TRUE(borrowed); });
  EXPECT_EQ(0, run([] { return map_shared() == MAP_FAILED && errno == EINTR ? 0 : 1; }));
}

TEST_F(RemoteSyscallsTest, SignalsWaitUntilTheThreadIsGivenBack) {
  on_mmap([](Result<std::shared_ptr<RemoteSyscalls>> borrowed) {
    ASSERT_TRUE(borrowed);
    auto calls = *borrowed;
    kill(calls->tid(), SIGUSR1);
    calls->run(SYS_getpid, {}, [calls](int64_t) { calls->set_result(-ENODEV); });
  });
  EXPECT_EQ(0, run([] {
              static volatile sig_atomic_t handled = 0;
              struct sigaction action {};
              action.sa_handler = [](int) { handled = 1; };
              sigaction(SIGUSR1, &action, nullptr);
              if (map_shared() != MAP_FAILED || errno != ENODEV) return 1;
              sigset_t blocked;
              sigprocmask(SIG_SETMASK, nullptr, &blocked);
              if (sigismember(&blocked, SIGUSR2)) return 2;
              return handled ? 0 : 3;
            }));
}

TEST_F(RemoteSyscallsTest, AStopTakesEffectAfterwards) {
  EventLoop::Timer wake;
  on_mmap([&](Result<std::shared_ptr<RemoteSyscalls>> borrowed) {
    ASSERT_TRUE(borrowed);
    auto calls = *borrowed;
    const pid_t pid = calls->tid();
    kill(pid, SIGSTOP);
    wake = loop_.after(std::chrono::milliseconds(50), [pid] { kill(pid, SIGCONT); });
    calls->run(SYS_getpid, {}, [calls](int64_t pid_there) {
      calls->set_result(pid_there == calls->tid() ? -ENODEV : -EIO);
    });
  });
  EXPECT_EQ(0, run([] { return map_shared() == MAP_FAILED && errno == ENODEV ? 0 : 1; }));
}

TEST_F(RemoteSyscallsTest, AProcessThatIsKilledMeanwhileIsTold) {
  int64_t result = 0;
  on_mmap([&](Result<std::shared_ptr<RemoteSyscalls>> borrowed) {
    ASSERT_TRUE(borrowed);
    auto calls = *borrowed;
    calls->run(SYS_pause, {}, [&, calls](int64_t ended) { result = ended; });
    kill(calls->tid(), SIGKILL);
  });
  EXPECT_EQ(128 + SIGKILL, run([] { return map_shared() == MAP_FAILED ? 1 : 2; }));
  EXPECT_EQ(result, -ESRCH);
}

}  // namespace
}  // namespace krg
