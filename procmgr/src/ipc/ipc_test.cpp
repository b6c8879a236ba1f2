// Programs under the filter on two nodes of one process: what they see of each other's semaphores
// and queues, and what ends their waits. The home is node 0.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/ipc.h"

#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/wait.h>

#include <atomic>

#include "testing/filtered_child.h"
#include "testing/loopback_nodes.h"

namespace krg {
namespace {

using testing::FilteredChild;
using testing::kill_at_once;

constexpr key_t kKey = 4711;

struct Node {
  explicit Node(NodeContext& context)
      : broker(context.loop),
        fs(context),
        ipc(context, broker, fs, {[] { return false; }, {}, {}, {}}) {}
  SyscallBroker broker;
  SessionFs fs;
  Ipc ipc;
};

int semaphore() {
  return semget(kKey, 1, IPC_CREAT | 0600);
}
int operate(int op, int flags = 0) {
  sembuf operation{0, static_cast<short>(op), static_cast<short>(flags)};
  return semop(semaphore(), &operation, 1);
}
int value() {
  return semctl(semaphore(), 0, GETVAL);
}
int queue() {
  return msgget(kKey, IPC_CREAT | 0600);
}
struct Text {
  long type = 1;
  char text[16] = "hello";
};
void on_signal(int) {}
void handle(int signal, int flags) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = flags;
  sigaction(signal, &action, nullptr);
}
bool fails(long result, int error) {
  return result < 0 && errno == error;
}

class IpcTest : public ::testing::Test {
 protected:
  // Runs a program on a node; its exit status.
  int run(Node& node, const std::function<int()>& program) {
    FilteredChild child(node.broker, program);
    return end_of(child);
  }
  int end_of(FilteredChild& child) {
    const int status = child.wait_in(nodes_.loop());
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
  }
  // Until one more call than those of the home waits on a node.
  bool run_until_waiting(Node& node, size_t count = 1) {
    const auto begun = std::chrono::steady_clock::now();
    return nodes_.run_until([&] {
      return node.ipc.waiting_count() == count &&
             std::chrono::steady_clock::now() - begun > std::chrono::milliseconds(60);
    });
  }
  std::string text(Node& node, std::string_view name) {
    std::optional<std::string> text;
    EXPECT_TRUE(node.ipc.read_text(name, [&](Result<std::string> told) { text = *told; }));
    EXPECT_TRUE(nodes_.run_until([&] { return text.has_value(); }));
    return text.value_or("");
  }

  testing::LoopbackNodes nodes_{2};
  Node home_{nodes_[0]}, far_{nodes_[1]};
};

TEST_F(IpcTest, ASemaphoreIsOneOnAllNodes) {
  EXPECT_EQ(run(far_, [] { return operate(3); }), 0);
  EXPECT_EQ(run(home_, [] { return value(); }), 3);
  FilteredChild waiter(far_.broker, [] { return operate(-4); });
  ASSERT_TRUE(run_until_waiting(far_));
  EXPECT_EQ(run(home_, [] { return operate(1); }), 0);
  EXPECT_EQ(end_of(waiter), 0);
  EXPECT_EQ(run(far_, [] { return semctl(semaphore(), 0, GETPID); }) & 0xff, waiter.pid() & 0xff);
  EXPECT_NE(text(far_, "sem").find("      4711"), std::string::npos);
}

TEST_F(IpcTest, AMessageGoesToAnotherNode) {
  FilteredChild receiver(far_.broker, [] {
    Text message;
    const long size = msgrcv(queue(), &message, sizeof message.text, 7, 0);
    return size == 3 && message.type == 7 && message.text[0] == 'a' ? 0 : 1;
  });
  ASSERT_TRUE(run_until_waiting(far_));
  EXPECT_EQ(run(home_,
                [] {
                  const Text message{7, "abc"};
                  return msgsnd(queue(), &message, 3, 0);
                }),
            0);
  EXPECT_EQ(end_of(receiver), 0);
  EXPECT_NE(text(far_, "msg").find("      4711"), std::string::npos);
}

TEST_F(IpcTest, ValuesGoBothWays) {
  EXPECT_EQ(run(far_,
                [] {
                  unsigned short in[3] = {3, 2, 1}, out[3] = {};
                  const int id = semget(IPC_PRIVATE, 3, 0600);
                  if (semctl(id, 0, SETALL, in) != 0 || semctl(id, 0, GETALL, out) != 0) return 1;
                  semid_ds set{};
                  if (semctl(id, 0, IPC_STAT, &set) != 0 || set.sem_nsems != 3) return 2;
                  set.sem_perm.mode = 0640;
                  if (semctl(id, 0, IPC_SET, &set) != 0) return 3;
                  if (!fails(semctl(id, 0, IPC_STAT, nullptr), EFAULT)) return 4;
                  if (!fails(semctl(id, 0, SETALL, nullptr), EFAULT)) return 5;
                  return memcmp(in, out, sizeof in) == 0 ? 0 : 6;
                }),
            0);
}

TEST_F(IpcTest, AHandlerEndsTheWaitWithEintr) {
  const auto program = [](bool of_queue, int flags) {
    handle(SIGUSR1, flags);
    if (!of_queue) return fails(operate(-1), EINTR) ? 0 : 1;
    Text message;
    return fails(msgrcv(queue(), &message, sizeof message.text, 0, 0), EINTR) ? 0 : 1;
  };
  for (bool of_queue : {false, true})
    for (int flags : {0, SA_RESTART}) {
      FilteredChild waiter(far_.broker, [&] { return program(of_queue, flags); });
      ASSERT_TRUE(run_until_waiting(far_));
      kill(waiter.pid(), SIGUSR1);
      EXPECT_EQ(end_of(waiter), 0);
    }
  EXPECT_EQ(run(home_, [] { return semctl(semaphore(), 0, GETNCNT); }), 0);
}

TEST_F(IpcTest, BlockedAndIgnoredSignalsDoNot) {
  FilteredChild waiter(far_.broker, [] {
    handle(SIGUSR1, 0);
    signal(SIGUSR2, SIG_IGN);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, nullptr);
    return operate(-1);
  });
  ASSERT_TRUE(run_until_waiting(far_));
  kill(waiter.pid(), SIGUSR1);
  kill(waiter.pid(), SIGUSR2);
  ASSERT_TRUE(run_until_waiting(far_));
  EXPECT_EQ(run(home_, [] { return operate(1); }), 0);
  EXPECT_EQ(end_of(waiter), 0);
}

TEST_F(IpcTest, AStoppedReceiverGoesOnWaiting) {
  FilteredChild receiver(far_.broker, [] {
    Text message;
    return msgrcv(queue(), &message, sizeof message.text, 0, 0) == 5 ? 0 : errno;
  });
  ASSERT_TRUE(run_until_waiting(far_));
  kill(receiver.pid(), SIGSTOP);
  int status = 0;
  ASSERT_TRUE(nodes_.run_until(
      [&] { return waitpid(receiver.pid(), &status, WUNTRACED | WNOHANG) == receiver.pid(); }));
  EXPECT_TRUE(WIFSTOPPED(status));
  kill(receiver.pid(), SIGCONT);
  ASSERT_TRUE(run_until_waiting(far_));
  EXPECT_EQ(run(home_,
                [] {
                  Text message;
                  return msgsnd(queue(), &message, 5, 0);
                }),
            0);
  EXPECT_EQ(end_of(receiver), 0);
}

TEST_F(IpcTest, ASemopOfAStoppedProcessFailsWithEintr) {
  FilteredChild waiter(far_.broker, [] { return fails(operate(-1), EINTR) ? 0 : 1; });
  ASSERT_TRUE(run_until_waiting(far_));
  kill(waiter.pid(), SIGSTOP);
  int status = 0;
  ASSERT_TRUE(nodes_.run_until(
      [&] { return waitpid(waiter.pid(), &status, WUNTRACED | WNOHANG) == waiter.pid(); }));
  kill(waiter.pid(), SIGCONT);
  EXPECT_EQ(end_of(waiter), 0);
}

// krgd ends waits of who is to be frozen, and has yet to begin with that.
TEST_F(IpcTest, ASemopWhoseCallerIsToBeFrozenIsMadeAnew) {
  constexpr int kAskedPerEnd = 2, kEnds = 3;
  int asked = 0;
  far_.ipc.end_waits_if([&](pid_t) { return asked++ < kAskedPerEnd * kEnds; });
  FilteredChild waiter(far_.broker, [] { return operate(-1); });
  ASSERT_TRUE(nodes_.run_until([&] { return asked > kAskedPerEnd * kEnds; }));
  EXPECT_EQ(run(home_, [] { return operate(1); }), 0);
  EXPECT_EQ(end_of(waiter), 0);
}

TEST_F(IpcTest, ATimeLimitIsKept) {
  EXPECT_EQ(run(far_,
                [] {
                  sembuf operation{0, -1, 0};
                  timespec limit{0, 30'000'000}, bad{0, 1'000'000'000};
                  const int id = semaphore();
                  if (!fails(semtimedop(id, &operation, 1, &bad), EINVAL)) return 1;
                  timespec begin, end;
                  clock_gettime(CLOCK_MONOTONIC, &begin);
                  if (!fails(semtimedop(id, &operation, 1, &limit), EAGAIN)) return 2;
                  clock_gettime(CLOCK_MONOTONIC, &end);
                  const long ns =
                      (end.tv_sec - begin.tv_sec) * 1'000'000'000 + end.tv_nsec - begin.tv_nsec;
                  return ns >= limit.tv_nsec ? 0 : 3;
                }),
            0);
}

TEST_F(IpcTest, AKilledWaiterTakesNothing) {
  auto waiter = std::make_unique<FilteredChild>(far_.broker, [] { return operate(-1); });
  ASSERT_TRUE(run_until_waiting(far_));
  kill_at_once(waiter->pid());
  EXPECT_EQ(run(home_, [] { return operate(1); }), 0);
  EXPECT_EQ(end_of(*waiter), 1000 + SIGKILL);
  ASSERT_TRUE(nodes_.run_until([&] { return far_.ipc.waiting_count() == 0; }));
  EXPECT_EQ(run(home_, [] { return operate(-1, IPC_NOWAIT); }), 0) << "the dead one took it";
}

TEST_F(IpcTest, AProcessEndUndoesItsOperations) {
  EXPECT_EQ(run(far_,
                [] {
                  const pid_t child = fork();
                  if (child == 0) _exit(operate(2, SEM_UNDO) == 0 && operate(1) == 0 ? 0 : 9);
                  int status = 0;
                  waitpid(child, &status, 0);
                  return WEXITSTATUS(status) == 0 ? value() : 99;
                }),
            1)
      << "undone before the parent asks";
}

TEST_F(IpcTest, RemovalWakesWaitersOnOtherNodes) {
  FilteredChild waiter(far_.broker, [] { return fails(operate(-1), EIDRM) ? 0 : 1; });
  ASSERT_TRUE(run_until_waiting(far_));
  EXPECT_EQ(run(home_, [] { return semctl(semaphore(), 0, IPC_RMID); }), 0);
  EXPECT_EQ(end_of(waiter), 0);
}

TEST_F(IpcTest, TheHomesLossRemovesItsObjects) {
  FilteredChild waiter(far_.broker, [] {
    if (!fails(operate(-1), EIDRM)) return 1;
    return semget(kKey, 0, 0600) < 0 && errno == ENOENT && operate(1) == 0 ? 0 : 2;
  });
  ASSERT_TRUE(run_until_waiting(far_));
  nodes_[1].messenger.mark_failed(NodeId{0});
  EXPECT_EQ(end_of(waiter), 0);
}

TEST_F(IpcTest, ThreadsAreInterruptedEachForItself) {
  EXPECT_EQ(run(far_,
                [] {
                  handle(SIGUSR1, 0);
                  static std::atomic<pthread_t> other;
                  static std::atomic<int> interrupted;
                  pthread_t thread;
                  pthread_create(
                      &thread, nullptr,
                      [](void*) -> void* {
                        other = pthread_self();
                        if (fails(operate(-1), EINTR)) ++interrupted;
                        return nullptr;
                      },
                      nullptr);
                  while (other == pthread_t{}) usleep(1000);
                  usleep(100'000);
                  pthread_kill(thread, SIGUSR1);
                  pthread_join(thread, nullptr);
                  return interrupted == 1 ? 0 : 1;
                }),
            0);
}

}  // namespace
}  // namespace krg
