// Programs under the filter on two nodes of one process whose common memory stands for a page set:
// what the kernel would do for one machine, the nodes do between them. The home is node 0. Both
// have one kernel here, so that only one of them has memory of its own for bells.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <atomic>
#include <memory>
#include <vector>

#include "ipc/futex_abi.h"
#include "ipc/priority_locks.h"
#include "krg/procmgr/ipc.h"
#include "krg/procmgr/shared_window.h"
#include "testing/filtered_child.h"
#include "testing/loopback_nodes.h"

namespace krg {
namespace {

using testing::FilteredChild;
using testing::kill_at_once;

constexpr size_t kPage = 4096;
constexpr SetId kSet{5};

// What the programs share.
struct Shared {
  std::atomic<uint32_t> word, other, count;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  pthread_barrier_t barrier;
  sem_t semaphore;
};

void on_signal(int) {}
void handle(int signal, int flags) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = flags;
  sigaction(signal, &action, nullptr);
}

class FutexesTest : public ::testing::Test {
 protected:
  struct Node {
    Node(NodeContext& context, const SharedWords& words)
        : broker(context.loop), fs(context), ipc(context, broker, fs, words) {}
    SyscallBroker broker;
    SessionFs fs;
    Ipc ipc;
  };

  // As SharedMemory does, whose word it is on that node.
  void change_locks(NodeContext& context) {
    using futex_messages::ChangeLock;
    context.messenger.on_request<ChangeLock>(
        [this](NodeId, const ChangeLock& message, std::string_view, Messenger::Reply reply) {
          auto& word = *reinterpret_cast<std::atomic<uint32_t>*>(reinterpret_cast<char*>(shared) +
                                                                 message.place.offset);
          uint32_t before = word;
          while (!word.compare_exchange_weak(before, priority_lock::changed(before, message))) {
          }
          reply.ok({reinterpret_cast<const char*>(&before), sizeof before});
        });
  }
  FutexesTest() {
    for (unsigned node : {0, 1}) change_locks(nodes_[node]);
  }

  Shared* make_memory() const {
    EXPECT_EQ(ftruncate(memory_.get(), kPage), 0);
    void* window = reinterpret_cast<void*>(kSharedWindow);
    void* memory =
        mmap(window, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory_.get(), 0);
    return new (memory) Shared{};
  }
  ~FutexesTest() override { munmap(shared, kPage); }

  SharedWords words(bool has_memory) {
    return {[] { return true; },
            [this](pid_t, RemoteAddr address) -> std::optional<SharedPlace> {
              const uint64_t begin = reinterpret_cast<uint64_t>(shared);
              if (address.value < begin || address.value >= begin + kPage) return std::nullopt;
              return SharedPlace{kSet, PageIndex{0}, address.value - begin};
            },
            [this, has_memory](SetId) { return has_memory ? memory_.get() : -1; },
            [](const SharedPlace&) {}};
  }
  int run(Node& node, const std::function<int()>& program) {
    FilteredChild child(node.broker, program);
    return end_of(child);
  }
  int end_of(FilteredChild& child) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    int status = -1;  // wait_in() handles a thousand events at the most
    while (status == -1 && std::chrono::steady_clock::now() < until)
      status = child.wait_in(nodes_.loop());
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
  }
  // Until so many calls wait on a node, and have done so for a moment.
  bool run_until_waiting(Node& node, size_t count = 1) {
    const auto begun = std::chrono::steady_clock::now();
    return nodes_.run_until([&] {
      return node.ipc.waiting_count() == count &&
             std::chrono::steady_clock::now() - begun > std::chrono::milliseconds(60);
    });
  }
  static long futex(std::atomic<uint32_t>& word, int op, uint32_t value,
                    const timespec* timeout = nullptr, std::atomic<uint32_t>* to = nullptr,
                    uint32_t value3 = 0) {
    return syscall(SYS_futex, &word, op, value, timeout, to, value3);
  }
  long wake(int count) { return futex(shared->word, FUTEX_WAKE, static_cast<uint32_t>(count)); }

  const UniqueFd memory_{memfd_create("words", MFD_CLOEXEC)};
  Shared* const shared = make_memory();
  testing::LoopbackNodes nodes_{2};
  Node home_{nodes_[0], words(true)}, far_{nodes_[1], words(false)};
};

TEST_F(FutexesTest, AWakeReachesAWaiterOfAnotherNode) {
  FilteredChild waiter(far_.broker,
                       [&] { return futex(shared->word, FUTEX_WAIT, 0) == 0 ? 0 : 1; });
  ASSERT_TRUE(run_until_waiting(far_));
  EXPECT_EQ(run(home_, [&] { return static_cast<int>(wake(5)); }), 1) << "so many were woken";
  EXPECT_EQ(end_of(waiter), 0);
  EXPECT_EQ(run(home_, [&] { return static_cast<int>(wake(5)); }), 0);
}

TEST_F(FutexesTest, AnotherValueIsNotWaitedFor) {
  shared->word = 3;
  EXPECT_EQ(run(far_, [&] { return futex(shared->word, FUTEX_WAIT, 0) < 0 ? errno : 0; }), EAGAIN);
  EXPECT_TRUE(nodes_.run_until([&] { return wake(1) == 0; })) << "it does not stay queued";
}

TEST_F(FutexesTest, PrivateAndOtherWordsAreTheKernels) {
  EXPECT_EQ(run(far_,
                [&] {
                  std::atomic<uint32_t> own = 1;
                  if (futex(own, FUTEX_WAIT, 0) == 0 || errno != EAGAIN) return 1;
                  if (futex(own, FUTEX_WAKE, 1) != 0) return 2;
                  return futex(shared->word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1) == 0 ? 0 : 3;
                }),
            0);
}

TEST_F(FutexesTest, TimeLimitsAreRelativeOrPointsInTime) {
  EXPECT_EQ(run(far_,
                [&] {
                  const timespec soon{0, 20'000'000}, past{1, 0}, bad{0, -1};
                  if (futex(shared->word, FUTEX_WAIT, 0, &soon) == 0 || errno != ETIMEDOUT)
                    return 1;
                  if (futex(shared->word, FUTEX_WAIT, 0, &bad) == 0 || errno != EINVAL) return 2;
                  for (int clock : {0, FUTEX_CLOCK_REALTIME})
                    if (futex(shared->word, FUTEX_WAIT_BITSET | clock, 0, &past, nullptr, 1) == 0 ||
                        errno != ETIMEDOUT)
                      return 3;
                  if (syscall(kFutexWaitv, nullptr, 2, 0, nullptr, 0) == 0 || errno != EINVAL)
                    return 4;
                  return 0;
                }),
            0);
}

TEST_F(FutexesTest, AHandlerEndsTheWaitUnlessItSaysRestart) {
  for (bool restart : {false, true}) {
    shared->count = 0;
    FilteredChild waiter(far_.broker, [&] {
      handle(SIGUSR1, restart ? SA_RESTART : 0);
      const long result = futex(shared->word, FUTEX_WAIT, 0);
      return result == 0 ? 0 : errno;
    });
    ASSERT_TRUE(run_until_waiting(far_));
    kill(waiter.pid(), SIGUSR1);
    if (restart) {
      nodes_.run_until([&] { return far_.ipc.waiting_count() == 0; });
      ASSERT_TRUE(run_until_waiting(far_));
      EXPECT_EQ(run(home_, [&] { return static_cast<int>(wake(1)); }), 1);
    }
    EXPECT_EQ(end_of(waiter), restart ? 0 : EINTR);
  }
}

TEST_F(FutexesTest, WaitersAreRequeued) {
  const auto wait = [&] { return futex(shared->word, FUTEX_WAIT, 0) == 0 ? 0 : 1; };
  FilteredChild first(far_.broker, wait), second(far_.broker, wait);
  ASSERT_TRUE(run_until_waiting(far_, 2));
  const auto all = reinterpret_cast<const timespec*>(100);
  EXPECT_EQ(run(home_,
                [&] {
                  if (futex(shared->word, FUTEX_CMP_REQUEUE, 1, all, &shared->other, 9) == 0 ||
                      errno != EAGAIN)
                    return 99;
                  return static_cast<int>(
                      futex(shared->word, FUTEX_CMP_REQUEUE, 1, all, &shared->other, 0));
                }),
            2)
      << "one woken, one moved";
  ASSERT_TRUE(run_until_waiting(far_, 1)) << far_.ipc.waiting_count();
  EXPECT_EQ(run(home_, [&] { return static_cast<int>(futex(shared->other, FUTEX_WAKE, 9)); }), 1);
  EXPECT_EQ(end_of(first), 0);
  EXPECT_EQ(end_of(second), 0);
}

TEST_F(FutexesTest, AWakeForADeadWaiterIsTheNextOnes) {
  const auto wait = [&] { return futex(shared->word, FUTEX_WAIT, 0) == 0 ? 0 : 1; };
  FilteredChild first(far_.broker, wait);
  ASSERT_TRUE(run_until_waiting(far_, 1));
  FilteredChild second(far_.broker, wait);
  ASSERT_TRUE(run_until_waiting(far_, 2));
  kill_at_once(first.pid());
  EXPECT_EQ(run(home_, [&] { return wake(1) <= 1 ? 0 : 1; }), 0);
  EXPECT_EQ(end_of(second), 0);
}

TEST_F(FutexesTest, TheHomesLossWakesEverybody) {
  FilteredChild waiter(far_.broker,
                       [&] { return futex(shared->word, FUTEX_WAIT, 0) == 0 ? 0 : 1; });
  ASSERT_TRUE(run_until_waiting(far_));
  nodes_[1].messenger.mark_failed(NodeId{0});
  EXPECT_EQ(end_of(waiter), 0);
}

// A semaphore's post must not fail: the C library ends the program then.
TEST_F(FutexesTest, ASignalDoesNotInterruptAWake) {
  FilteredChild waiter(far_.broker,
                       [&] { return futex(shared->word, FUTEX_WAIT, 0) == 0 ? 0 : 1; });
  ASSERT_TRUE(run_until_waiting(far_));
  EXPECT_EQ(run(home_,
                [&] {
                  handle(SIGALRM, 0);
                  const itimerval often{{0, 50}, {0, 50}};
                  setitimer(ITIMER_REAL, &often, nullptr);
                  for (int i = 0; i < 20'000; ++i)
                    if (futex(shared->other, FUTEX_WAKE, 1) != 0) return 1;
                  return futex(shared->word, FUTEX_WAKE, 1) == 1 ? 0 : 2;
                }),
            0);
  EXPECT_EQ(end_of(waiter), 0);
}

TEST_F(FutexesTest, AWakeThatChangesAWordReachesBothOfItsWords) {
  FilteredChild first(far_.broker, [&] { return futex(shared->word, FUTEX_WAIT, 0) == 0 ? 0 : 1; });
  // One that is queued may look at its word when it has changed already.
  FilteredChild second(far_.broker, [&] {
    return futex(shared->other, FUTEX_WAIT, 0) == 0 || errno == EAGAIN ? 0 : 1;
  });
  ASSERT_TRUE(run_until_waiting(far_, 2));
  EXPECT_EQ(run(home_,
                [&] {
                  return static_cast<int>(
                      futex(shared->word, FUTEX_WAKE_OP, 1, reinterpret_cast<const timespec*>(1),
                            &shared->other, FUTEX_OP(FUTEX_OP_SET, 7, FUTEX_OP_CMP_EQ, 0)));
                }),
            2);
  EXPECT_EQ(shared->other, 7u);
  EXPECT_EQ(end_of(first), 0);
  EXPECT_EQ(end_of(second), 0);
}

TEST_F(FutexesTest, EachWakeOfOneIsOneWaiters) {
  constexpr int kWaiters = 6;
  std::vector<std::unique_ptr<FilteredChild>> waiters;
  for (int i = 0; i < kWaiters; ++i)
    waiters.push_back(std::make_unique<FilteredChild>(i % 2 ? far_.broker : home_.broker, [&] {
      return futex(shared->word, FUTEX_WAIT, 0) == 0 ? 0 : 1;
    }));
  const auto waiting = [&] { return home_.ipc.waiting_count() + far_.ipc.waiting_count(); };
  ASSERT_TRUE(nodes_.run_until([&] { return waiting() == kWaiters; }));
  for (unsigned left = kWaiters; left > 0; --left) {
    ASSERT_TRUE(nodes_.run_until([&] { return wake(1) == 1; }));
    EXPECT_TRUE(nodes_.run_until([&] { return waiting() == left - 1; })) << left;
  }
  for (auto& waiter : waiters) EXPECT_EQ(end_of(*waiter), 0);
  EXPECT_TRUE(nodes_.run_until([&] { return wake(1) == 0; }));
}

// So a program takes futex(2) for them.
TEST_F(FutexesTest, NewerCallsAreRefusedForSharedWordsOnly) {
  EXPECT_EQ(run(far_,
                [&] {
                  std::atomic<uint32_t> own = 1;
                  futex_waitv waits[2] = {
                      {0, reinterpret_cast<uint64_t>(&own), FUTEX_32, 0},
                      {0, reinterpret_cast<uint64_t>(&shared->word), FUTEX_32, 0}};
                  if (syscall(kFutexWaitv, waits, 2, 0, nullptr, 0) == 0 || errno != ENOSYS)
                    return 1;
                  if (syscall(kFutexWaitv, waits, 1, 0, nullptr, 0) == 0 || errno != EAGAIN)
                    return 2;
                  waits[1].flags |= FUTEX_PRIVATE_FLAG;
                  if (syscall(kFutexWaitv, waits, 2, 0, nullptr, 0) == 0 || errno != EAGAIN)
                    return 3;
                  return 0;
                }),
            0);
}

TEST_F(FutexesTest, ALockWithPriorityInheritanceIsHandedOn) {
  FilteredChild owner(home_.broker, [&] {
    shared->word = static_cast<uint32_t>(getpid());  // which takes no system call
    while (shared->count == 0) usleep(1000);
    return futex(shared->word, FUTEX_UNLOCK_PI, 0) == 0 ? 0 : errno;
  });
  ASSERT_TRUE(nodes_.run_until([&] { return shared->word != 0; }));
  const auto lock = [&] {
    if (futex(shared->word, FUTEX_UNLOCK_PI, 0) == 0 || errno != EPERM) return 1;
    if (futex(shared->word, FUTEX_TRYLOCK_PI, 0) == 0 || errno != EAGAIN) return 2;
    const timespec past{1, 0};
    if (futex(shared->word, FUTEX_LOCK_PI, 0, &past) == 0 || errno != ETIMEDOUT) return 3;
    handle(SIGUSR1,
           0);  // it is no error to be interrupted: the C library takes errors for the lock
    if (futex(shared->word, FUTEX_LOCK_PI, 0) != 0) return errno;
    if ((shared->word & FUTEX_TID_MASK) != static_cast<uint32_t>(getpid())) return 4;
    if (futex(shared->word, FUTEX_LOCK_PI, 0) == 0 || errno != EDEADLK) return 5;
    return futex(shared->word, FUTEX_UNLOCK_PI, 0) == 0 ? 0 : errno;
  };
  FilteredChild first(far_.broker, lock), second(home_.broker, lock);
  ASSERT_TRUE(run_until_waiting(far_, 1) && run_until_waiting(home_, 1));
  for (FilteredChild* child : {&first, &second}) kill(child->pid(), SIGUSR1);
  ASSERT_TRUE(run_until_waiting(far_, 1) && run_until_waiting(home_, 1));
  shared->count = 1;
  for (FilteredChild* child : {&owner, &first, &second}) EXPECT_EQ(end_of(*child), 0);
  EXPECT_EQ(shared->word, 0u);
}

TEST_F(FutexesTest, ALockOfADeadThreadWithPriorityInheritanceIsGivenToTheNext) {
  FilteredChild owner(home_.broker, [&] {
    shared->word = static_cast<uint32_t>(getpid());
    for (;;) pause();
    return 0;
  });
  ASSERT_TRUE(nodes_.run_until([&] { return shared->word != 0; }));
  FilteredChild waiter(far_.broker, [&] {
    if (futex(shared->word, FUTEX_LOCK_PI, 0) != 0) return errno;
    return shared->word == (static_cast<uint32_t>(getpid()) | FUTEX_OWNER_DIED | FUTEX_WAITERS) ? 0
                                                                                                : 1;
  });
  ASSERT_TRUE(run_until_waiting(far_));
  kill(owner.pid(), SIGKILL);
  EXPECT_EQ(end_of(waiter), 0);
}

TEST_F(FutexesTest, MutexConditionBarrierAndSemaphoreWorkBetweenNodes) {
  pthread_mutexattr_t mutex_kind;
  pthread_mutexattr_init(&mutex_kind);
  pthread_mutexattr_setpshared(&mutex_kind, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&shared->mutex, &mutex_kind);
  pthread_condattr_t condition_kind;
  pthread_condattr_init(&condition_kind);
  pthread_condattr_setpshared(&condition_kind, PTHREAD_PROCESS_SHARED);
  pthread_cond_init(&shared->changed, &condition_kind);
  pthread_barrierattr_t barrier_kind;
  pthread_barrierattr_init(&barrier_kind);
  pthread_barrierattr_setpshared(&barrier_kind, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&shared->barrier, &barrier_kind, 3);
  sem_init(&shared->semaphore, 1, 0);

  constexpr uint32_t kTurns = 200, kPrograms = 3;
  const auto program = [&](uint32_t mine) {
    pthread_barrier_wait(&shared->barrier);
    for (uint32_t i = 0; i < kTurns; ++i) {  // in turn, so that each wait is for another program
      pthread_mutex_lock(&shared->mutex);
      while (shared->count % kPrograms != mine) pthread_cond_wait(&shared->changed, &shared->mutex);
      ++shared->count;
      pthread_cond_broadcast(&shared->changed);
      pthread_mutex_unlock(&shared->mutex);
    }
    if (mine == 0)
      for (uint32_t i = 1; i < kPrograms; ++i) sem_wait(&shared->semaphore);
    else
      sem_post(&shared->semaphore);
    return 0;
  };
  FilteredChild first(home_.broker, [&] { return program(0); });
  FilteredChild second(far_.broker, [&] { return program(1); });
  FilteredChild third(far_.broker, [&] { return program(2); });
  for (auto* child : {&first, &second, &third}) EXPECT_EQ(end_of(*child), 0);
  EXPECT_EQ(shared->count, kTurns * kPrograms);
}

TEST_F(FutexesTest, ARobustMutexOutlivesItsOwner) {
  pthread_mutexattr_t kind;
  pthread_mutexattr_init(&kind);
  pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&shared->mutex, &kind);
  FilteredChild owner(home_.broker, [&] {
    pthread_mutex_lock(&shared->mutex);  // which takes no system call
    shared->count = 1;
    for (;;) pause();
    return 0;
  });
  ASSERT_TRUE(nodes_.run_until([&] { return shared->count == 1; }));
  FilteredChild waiter(far_.broker, [&] { return pthread_mutex_lock(&shared->mutex); });
  ASSERT_TRUE(run_until_waiting(far_));
  kill(owner.pid(), SIGKILL);
  EXPECT_EQ(end_of(waiter), EOWNERDEAD);
}

// The kernel cannot mark a word whose page lies elsewhere: here its owner's list lacks it.
TEST_F(FutexesTest, AWordThatNamesADeadThreadIsFreed) {
  FilteredChild owner(home_.broker, [&] {
    shared->word = static_cast<uint32_t>(getpid()) | FUTEX_WAITERS;
    for (;;) pause();
    return 0;
  });
  ASSERT_TRUE(nodes_.run_until([&] { return shared->word != 0; }));
  const uint32_t locked = shared->word;
  const auto wait = [&] { return futex(shared->word, FUTEX_WAIT, locked) == 0 ? 0 : errno; };
  FilteredChild first(far_.broker, wait), second(home_.broker, wait);
  ASSERT_TRUE(nodes_.run_until(
      [&] { return far_.ipc.waiting_count() == 1 && home_.ipc.waiting_count() == 1; }));
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(1200);
  EXPECT_FALSE(nodes_.run_until([&] {
    return shared->word != locked || std::chrono::steady_clock::now() > until;
  }) && shared->word != locked)
      << "its owner lives";
  kill(owner.pid(), SIGKILL);
  for (auto* child : {&first, &second}) {
    const int result = end_of(*child);
    EXPECT_TRUE(result == 0 || result == EAGAIN) << result;
  }
  EXPECT_EQ(shared->word, FUTEX_WAITERS | FUTEX_OWNER_DIED);
}

}  // namespace
}  // namespace krg
