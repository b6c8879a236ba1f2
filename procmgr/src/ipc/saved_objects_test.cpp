// Objects of the home, saved and made again. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include "message_queues.h"
#include "posix_queues.h"
#include "semaphore_sets.h"

namespace krg {
namespace {

constexpr NodeId kNode{2};
constexpr pid_t kPid = 70;

IpcCall call_of(int number, std::array<int64_t, 4> args, std::string data = {}) {
  IpcCall call;
  call.ticket = {kNode, 1};
  call.caller.pid = kPid;
  call.number = number;
  call.args = args;
  call.data = std::move(data);
  return call;
}

int64_t value_of(const IpcDones& done) {
  return done.size() == 1 && done[0].error == 0 ? done[0].value : -1;
}

IpcDones operate(SemaphoreSets& sets, int64_t id, sembuf operation) {
  return sets.step(call_of(SYS_semop, {id}, ipc_bytes(operation)));
}
int64_t value_in(SemaphoreSets& sets, int64_t id, int number) {
  return value_of(sets.step(call_of(SYS_semctl, {id, number, GETVAL})));
}

const TakesIpc kAll = takes_ipc_of({kPid}, {});

TEST(SavedObjects, SemaphoresAndWhatIsToBeUndone) {
  SemaphoreSets sets;
  static_cast<void>(sets.step(call_of(SYS_semget, {IPC_PRIVATE, 1, 0600})));
  const int64_t id = value_of(sets.step(call_of(SYS_semget, {77, 2, IPC_CREAT | 0640})));
  ASSERT_EQ(operate(sets, id, {0, 5, 0}).at(0).error, 0);
  ASSERT_EQ(operate(sets, id, {0, -2, SEM_UNDO}).at(0).error, 0);
  SavedIpc saved;
  ASSERT_TRUE(sets.save(kAll, saved));
  ASSERT_EQ(saved.semaphores.size(), 2u);

  SemaphoreSets again;
  for (const SavedSemaphores& set : saved.semaphores) ASSERT_TRUE(again.restore(set, kNode));
  EXPECT_EQ(value_of(again.step(call_of(SYS_semget, {77, 2, 0}))), id);
  EXPECT_EQ(value_in(again, id, 0), 3);
  static_cast<void>(again.process_ended(kPid));
  EXPECT_EQ(value_in(again, id, 0), 5);
  // Who makes a set then gets an identifier of its own.
  const int64_t fresh = value_of(again.step(call_of(SYS_semget, {IPC_PRIVATE, 1, 0600})));
  for (const SavedSemaphores& set : saved.semaphores) EXPECT_NE(fresh, set.object.id);
}

TEST(SavedObjects, AnIdentifierOrKeyOfOthersIsNotTaken) {
  SemaphoreSets sets, others;
  static_cast<void>(sets.step(call_of(SYS_semget, {77, 1, IPC_CREAT | 0600})));
  SavedIpc saved;
  ASSERT_TRUE(sets.save(kAll, saved));
  static_cast<void>(others.step(call_of(SYS_semget, {78, 1, IPC_CREAT | 0600})));
  EXPECT_EQ(others.restore(saved.semaphores[0], kNode).error().errno_or(0), EEXIST);
  EXPECT_TRUE(sets.restore(saved.semaphores[0], kNode)) << "what was left over is replaced";
}

TEST(SavedObjects, MessagesInTheirOrder) {
  MessageQueues queues;
  const int64_t id = value_of(queues.step(call_of(SYS_msgget, {IPC_PRIVATE, IPC_CREAT | 0600})));
  for (int64_t type : {3, 1, 3})
    static_cast<void>(queues.step(call_of(SYS_msgsnd, {id, type, 1, 0}, std::to_string(type))));
  SavedIpc saved;
  ASSERT_TRUE(queues.save(kAll, saved));
  MessageQueues again;
  ASSERT_TRUE(again.restore(saved.message_queues.at(0)));
  for (int64_t type : {3, 1, 3}) {
    const auto got = again.step(call_of(SYS_msgrcv, {id, 10, 0, IPC_NOWAIT}));
    ASSERT_EQ(value_of(got), 1);
    EXPECT_EQ(got[0].data, ipc_bytes(type) + std::to_string(type));
  }
  again.drop(saved.message_queues[0]);
  EXPECT_EQ(again.step(call_of(SYS_msgrcv, {id, 10, 0, IPC_NOWAIT})).at(0).error, EINVAL);
}

IpcCall open_call(int64_t flags, std::string_view name) {
  return call_of(static_cast<int>(PosixQueueOp::kOpen), {flags, 0600, 4, 100},
                 ipc_bytes(PosixQueueLimits{UINT64_MAX}) + std::string(name));
}

TEST(SavedObjects, PosixQueuesWithAndWithoutNames) {
  PosixQueues queues;
  const int64_t named = value_of(queues.step(open_call(O_CREAT | O_RDWR, "named")));
  const int64_t hidden = value_of(queues.step(open_call(O_CREAT | O_RDWR, "hidden")));
  const int64_t apart = value_of(queues.step(open_call(O_CREAT | O_RDWR, "apart")));
  for (const char* name : {"hidden", "apart"})
    static_cast<void>(queues.step(call_of(static_cast<int>(PosixQueueOp::kUnlink), {}, name)));
  for (int64_t priority : {1, 9})
    static_cast<void>(
        queues.step(call_of(static_cast<int>(PosixQueueOp::kSend), {hidden, priority, 1}, "text")));
  SavedIpc saved;
  std::vector<int64_t> numbers;
  ASSERT_TRUE(queues.save(kAll, {hidden}, saved, numbers));
  EXPECT_EQ(numbers, (std::vector{named, hidden})) << "not " << apart << ", which others have";

  PosixQueues again;
  EXPECT_GT(again.restore(saved.posix_queues[0], kNode), 0);
  const int64_t number = again.restore(saved.posix_queues[1], kNode);
  const IpcCall receive = call_of(static_cast<int>(PosixQueueOp::kReceive), {number, 100, 1});
  EXPECT_EQ(again.step(receive).at(0).data, ipc_bytes(uint32_t{9}) + "text");
  static_cast<void>(again.step(call_of(static_cast<int>(PosixQueueOp::kDrop), {number})));
  EXPECT_EQ(again.step(receive).at(0).error, EBADF) << "nobody uses it any more";
}

TEST(SavedObjects, WhoseTheyAre) {
  const TakesIpc takes = takes_ipc_of({kPid}, {71});
  EXPECT_TRUE(takes("it", {kPid, 0}).value_or(false));
  EXPECT_FALSE(takes("it", {71}).value_or(true));
  EXPECT_EQ(takes("it", {71, kPid}).error().errno_or(0), ENOTSUP);
  EXPECT_EQ(takes("it", {0}).error().errno_or(0), ENOTSUP);
}

}  // namespace
}  // namespace krg
