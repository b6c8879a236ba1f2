// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/large_fork.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <csignal>
#include <functional>

#include "image/task_memory.h"
#include "image/testing/frozen_process_fixture.h"
#include "testing/filtered_child.h"

namespace krg {
namespace {

using testing::FilteredChild;
using testing::FrozenProcessTest;

constexpr size_t kBytes = 128u << 20, kWords = kBytes / sizeof(uint64_t);

volatile sig_atomic_t child_signals = 0;
void count_child_signal(int) {
  child_signals = child_signals + 1;
}

// A child under a filter that stops its forks, with memory that was filled before it was made. It
// exits with what its own child says of that memory.
class LargeForkTest : public FrozenProcessTest {
 protected:
  void SetUp() override {
    FrozenProcessTest::SetUp();
    words = static_cast<uint64_t*>(
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(words, MAP_FAILED);
    known.takes_shared = true;  // the page that it shares with the test
  }
  void TearDown() override {
    munmap(words, kBytes);
    FrozenProcessTest::TearDown();
  }

  static uint64_t word_of(size_t i) { return i * 0x9e3779b97f4a7c15u | 1; }
  void begin_program() {
    struct sigaction action {};
    action.sa_handler = count_child_signal;
    sigaction(SIGCHLD, &action, nullptr);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    for (size_t i = 0; i < kWords; i += 512) words[i] = word_of(i);
  }
  int fork_and_wait(const std::function<pid_t()>& forks = fork) {
    const pid_t child = forks();
    if (child == 0) {
      if (msync(words, 4096, MS_ASYNC) != 0) _exit(4);  // it is not there
      for (size_t i = 0; i < kWords; i += 512)
        if (words[i] != word_of(i)) _exit(1);
      _exit(0);
    }
    int status = 0;
    pid_t waited;
    do waited = waitpid(-1, &status, 0);
    while (waited < 0 && errno == EINTR);
    if (waited != child) return 2;
    if (waitpid(-1, &status, 0) != -1 || errno != ECHILD) return 3;
    shared->count = static_cast<uint64_t>(child_signals);
    return WEXITSTATUS(status);
  }
  std::function<int()> program = [this] { return fork_and_wait(); };

  // Runs the program, whose first fork is made large, and then every other one; `made` gets it.
  int run(const LargeFork::Made& made) {
    for (int number : {SYS_fork, SYS_clone})
      broker.set_handler(number, [this, made](SyscallBroker::Call call) {
        if (++forks % 2 == 0) return call.go_on();
        forker = call.tid();
        EXPECT_TRUE(LargeFork::is_worth_it(forker));
        auto taken = LargeFork::begin(
            *reaper, call, [this]() -> MappingTexts& { return known; }, made);
        EXPECT_TRUE(taken) << taken.error().message();
      });
    const auto all = [this] {
      begin_program();
      return program();
    };
    FilteredChild child(broker, all, testing::range_of(getpid()), true);
    watch(child.pid());
    return end_of(child.pid());
  }

  static bool has(const std::vector<PageRange>& pages, uint64_t at) {
    return std::ranges::any_of(pages, [at](const PageRange& range) {
      return range.start.value <= at && at < range.end().value;
    });
  }
  template <class Value>
  static Value read_of(pid_t task, RemoteAddr at) {
    Value value{};
    auto memory = TaskMemory::open(task);
    const std::array<MemoryPiece, 1> piece{{{at, sizeof value}}};
    EXPECT_TRUE(memory && memory->read(piece, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  template <class Value>
  static Value read_of(const LargeFork& fork, RemoteAddr at) {
    Value value{};
    EXPECT_TRUE(fork.read(at, {reinterpret_cast<char*>(&value), sizeof value}));
    return value;
  }
  // Advises the memory between two forks, of which the second is to be refused.
  void forks_before_and_after(int advice, int end_of_child) {
    program = [this, advice] {
      const int status = fork_and_wait();
      madvise(words, kBytes, advice);
      return status != 0 ? status : fork_and_wait();
    };
    std::vector<int> errors;
    const int status = run([&](const Result<std::shared_ptr<LargeFork>>& made) {
      errors.push_back(made ? 0 : made.error().errno_or(-1));
      if (made) (*made)->call_again();
    });
    EXPECT_EQ(errors, (std::vector<int>{0, ENOTSUP}));
    EXPECT_EQ(status, end_of_child);
    EXPECT_EQ(forks, 4);
  }

  SyscallBroker broker{loop};
  MappingTexts known;
  uint64_t* words = nullptr;
  int forks = 0;
  bool is_copied = false;
  pid_t forker = 0;
};

TEST_F(LargeForkTest, TheChildIsMadeWithoutTheMemoryWhichIsReadAndCopied) {
  const int status = run([&](Result<std::shared_ptr<LargeFork>> made) {
    ASSERT_TRUE(made) << made.error().message();
    std::shared_ptr<LargeFork> fork = *made;
    FrozenProcess& child = *fork->child();
    EXPECT_EQ(child.call(SYS_getpid, {}), child.pid());
    EXPECT_EQ(child.main().registers().rax, 0u);
    const size_t middle = kWords / 2;
    const RemoteAddr at{reinterpret_cast<uint64_t>(words + middle)};
    EXPECT_FALSE(child.read_value<uint64_t>(at));
    uint64_t word = 0;
    ASSERT_TRUE(fork->read(at, {reinterpret_cast<char*>(&word), sizeof word}));
    EXPECT_EQ(word, word_of(middle));
    // Over the bounds of what was left out.
    std::vector<uint64_t> all(kWords);
    ASSERT_TRUE(fork->read(RemoteAddr{reinterpret_cast<uint64_t>(words)},
                           {reinterpret_cast<char*>(all.data()), kBytes}));
    for (size_t i = 0; i < kWords; i += 512) ASSERT_EQ(all[i], word_of(i)) << i;
    EXPECT_TRUE(has(fork->take_pages(), at.value));
    fork->copy_memory([this, fork, at, middle](Result<pid_t> task) {
      ASSERT_TRUE(task) << task.error().message();
      EXPECT_EQ(read_of<uint64_t>(*task, at), word_of(middle));
      is_copied = true;
      kill(*task, SIGKILL);
    });
    fork->call_again();  // waits for the copy
  });
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(is_copied);
  EXPECT_EQ(forks, 2);
  EXPECT_EQ(shared->count, 1u) << "signals of children that ended";
}

TEST_F(LargeForkTest, TheForkerMakesItsCallAgain) {
  pid_t first = 0;
  const int status = run([&](Result<std::shared_ptr<LargeFork>> made) {
    ASSERT_TRUE(made) << made.error().message();
    first = (*made)->child()->pid();
    (*made)->call_again();
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(forks, 2);
  EXPECT_EQ(shared->count, 1u) << "signals of children that ended";
  EXPECT_EQ(kill(first, 0), -1);
}

TEST_F(LargeForkTest, MemoryThatForksDoNotCopyIsLeftToTheKernel) {
  ASSERT_EQ(madvise(words, 4096, MADV_WIPEONFORK), 0);
  int error = 0;
  // A child of it sees zeros there: status 1.
  EXPECT_EQ(run([&](const Result<std::shared_ptr<LargeFork>>& made) {
              error = made ? 0 : made.error().errno_or(-1);
            }),
            1);
  EXPECT_EQ(error, ENOTSUP);
  EXPECT_EQ(forks, 2);
}

// What was told of its mappings was so at its last fork.
TEST_F(LargeForkTest, MemoryThatIsKeptFromChildrenSinceIsFoundOut) {
  forks_before_and_after(MADV_DONTFORK, 4);
}

TEST_F(LargeForkTest, MemoryThatIsWipedInChildrenSinceIsFoundOut) {
  forks_before_and_after(MADV_WIPEONFORK, 1);
}

// The child's in a page that nobody had touched, and beside the parent's in the large memory.
TEST_F(LargeForkTest, IdsThatTheKernelWritesAreTheChilds) {
  auto* ids = static_cast<pid_t*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(ids, MAP_FAILED);
  const uint64_t in_large = reinterpret_cast<uint64_t>(words + kWords / 2 + 1);
  program = [&] {
    return fork_and_wait([&] {
      return static_cast<pid_t>(syscall(SYS_clone,
                                        CLONE_CHILD_SETTID | CLONE_PARENT_SETTID | SIGCHLD, nullptr,
                                        in_large, ids, nullptr));
    });
  };
  const int status = run([&](Result<std::shared_ptr<LargeFork>> made) {
    ASSERT_TRUE(made) << made.error().message();
    auto fork = *made;
    const RemoteAddr at{reinterpret_cast<uint64_t>(ids)}, parents{in_large};
    EXPECT_TRUE(has(fork->take_pages(), at.value));
    EXPECT_EQ(read_of<pid_t>(*fork, at), fork->child()->pid());
    EXPECT_EQ(read_of<pid_t>(*fork, parents), 0);
    fork->copy_memory([&, fork, at, parents, child = fork->child()->pid()](Result<pid_t> task) {
      ASSERT_TRUE(task) << task.error().message();
      EXPECT_EQ(read_of<pid_t>(*task, at), child);
      EXPECT_EQ(read_of<pid_t>(*task, parents), 0);
      is_copied = true;
      kill(*task, SIGKILL);
    });
    fork->call_again();
  });
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(is_copied);
  munmap(ids, 4096);
}

TEST_F(LargeForkTest, ItsDeathIsTold) {
  int error = 0;
  run([&](Result<std::shared_ptr<LargeFork>> made) {
    ASSERT_TRUE(made) << made.error().message();
    auto fork = *made;
    kill(forker, SIGKILL);
    fork->copy_memory([&, fork](Result<pid_t> task) {
      error = task ? 0 : task.error().errno_or(-1);
      if (task) kill(*task, SIGKILL);
    });
    fork->call_again();
  });
  EXPECT_EQ(error, ESRCH);
}

}  // namespace
}  // namespace krg
