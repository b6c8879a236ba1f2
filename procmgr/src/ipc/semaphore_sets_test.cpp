// What semop(2), semctl(2) and semget(2) promise, on the state machine alone.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ipc/semaphore_sets.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cstring>

namespace krg {
namespace {

constexpr uid_t kAlice = 1000, kBob = 1001;
constexpr IpcTicket kNobody{};

class SemaphoreSetsTest : public ::testing::Test {
 protected:
  // Makes a call as process `pid`; its own answer, kBlocked when it waits. What others are answered
  // goes to `woken`.
  static constexpr int kBlocked = -999;
  int make(int number, pid_t pid, std::array<int64_t, 4> args, std::string data = {},
           uid_t uid = kAlice) {
    IpcCall call;
    call.ticket = last_ticket = {NodeId{static_cast<uint16_t>(pid / 100)}, ++tickets_};
    call.caller = {pid, uid, uid, capabilities, {}};
    call.now_s = ++now_s_;
    call.number = number;
    call.args = args;
    call.data = std::move(data);
    return take(sets.step(call), call.ticket);
  }
  int take(IpcDones done, const IpcTicket& own) {
    woken.clear();
    int result = kBlocked;
    for (IpcDone& one : done) {
      if (one.ticket == own) {
        result = one.error != 0 ? -one.error : static_cast<int>(one.value);
        out = one.data;
      } else {
        woken[one.ticket] = -one.error;
      }
    }
    return result;
  }
  int get(int count, key_t key = IPC_PRIVATE, int flags = IPC_CREAT | 0600, uid_t uid = kAlice) {
    return make(SYS_semget, 1, {key, count, flags, 0}, {}, uid);
  }
  int operate(pid_t pid, int id, std::vector<sembuf> operations, uid_t uid = kAlice) {
    return make(
        SYS_semop, pid, {id, static_cast<int64_t>(operations.size()), 0, 0},
        {reinterpret_cast<const char*>(operations.data()), operations.size() * sizeof(sembuf)},
        uid);
  }
  int control(int id, int number, int command, int64_t value = 0, std::string data = {},
              uid_t uid = kAlice) {
    return make(SYS_semctl, 1, {id, number, command, value}, std::move(data), uid);
  }
  int value(int id, int number = 0) { return control(id, number, GETVAL); }
  IpcTicket wait_for(pid_t pid, int id, sembuf operation) {
    EXPECT_EQ(operate(pid, id, {operation}), kBlocked);
    return last_ticket;
  }

  SemaphoreSets sets;
  IpcTicket last_ticket;
  std::map<IpcTicket, int> woken;
  std::string out;
  uint64_t capabilities = 0;

 private:
  uint64_t tickets_ = 0;
  int64_t now_s_ = 1'000'000;
};

TEST_F(SemaphoreSetsTest, KeysNameSets) {
  EXPECT_EQ(get(1, 7, 0600), -ENOENT);
  const int id = get(3, 7);
  EXPECT_EQ(id, 0) << "the first identifier of a namespace";
  EXPECT_EQ(get(3, 7), id);
  EXPECT_EQ(get(0, 7, 0), id);
  EXPECT_EQ(get(4, 7), -EINVAL) << "it has fewer";
  EXPECT_EQ(get(3, 7, IPC_CREAT | IPC_EXCL | 0600), -EEXIST);
  EXPECT_NE(get(1), get(1)) << "IPC_PRIVATE is always new";
  EXPECT_EQ(get(0), -EINVAL);
  EXPECT_EQ(get(-1), -EINVAL);
  EXPECT_EQ(get(SemaphoreSets::kMostPerSet + 1), -EINVAL);
  EXPECT_EQ(control(id, 0, IPC_RMID), 0);
  EXPECT_EQ(get(3, 7, 0600), -ENOENT);
  EXPECT_NE(get(3, 7), id) << "an identifier is not used again at once";
  EXPECT_EQ(value(id), -EINVAL);
}

TEST_F(SemaphoreSetsTest, AllOperationsHappenOrNone) {
  const int id = get(2);
  EXPECT_EQ(operate(10, id, {{0, 2, 0}, {1, 1, 0}}), 0);
  EXPECT_EQ(operate(10, id, {{0, -1, 0}, {1, -2, IPC_NOWAIT}}), -EAGAIN);
  EXPECT_EQ(value(id, 0), 2) << "nothing of it happened";
  EXPECT_EQ(operate(10, id, {{0, -2, 0}, {0, 0, 0}, {0, 1, 0}}), 0) << "one after the other";
  EXPECT_EQ(value(id, 0), 1);
  EXPECT_EQ(operate(10, id, {{0, 32767, 0}}), -ERANGE);
  EXPECT_EQ(operate(10, id, {{2, 1, 0}}), -EFBIG);
  EXPECT_EQ(operate(10, id, {}), -EINVAL);
  EXPECT_EQ(operate(10, id, std::vector<sembuf>(501)), -E2BIG);
  EXPECT_EQ(control(id, 0, GETPID), 10);
}

TEST_F(SemaphoreSetsTest, WaitersAreServedInOrder) {
  const int id = get(1);
  const IpcTicket first = wait_for(10, id, {0, -2, 0}), second = wait_for(11, id, {0, -1, 0});
  EXPECT_EQ(control(id, 0, GETNCNT), 2);
  EXPECT_EQ(control(id, 0, GETZCNT), 0);
  EXPECT_EQ(operate(12, id, {{0, 1, 0}}), 0);
  EXPECT_EQ(woken, (std::map<IpcTicket, int>{{second, 0}})) << "the first needs two";
  EXPECT_EQ(operate(12, id, {{0, 3, 0}}), 0);
  EXPECT_EQ(woken, (std::map<IpcTicket, int>{{first, 0}}));
  EXPECT_EQ(value(id), 1);
  EXPECT_EQ(control(id, 0, GETPID), 10) << "the sleeper's pid, whose operation was done last";
}

TEST_F(SemaphoreSetsTest, WaitersForZeroSeeEveryZero) {
  const int id = get(1);
  EXPECT_EQ(control(id, 0, SETVAL, 1), 0);
  const IpcTicket zero = wait_for(10, id, {0, 0, 0});
  EXPECT_EQ(control(id, 0, GETZCNT), 1);
  EXPECT_EQ(operate(11, id, {{0, -1, 0}}), 0);
  EXPECT_EQ(woken, (std::map<IpcTicket, int>{{zero, 0}}));
}

TEST_F(SemaphoreSetsTest, RemovalWakesWithEidrm) {
  const int id = get(1);
  const IpcTicket waiter = wait_for(10, id, {0, -1, SEM_UNDO});
  EXPECT_EQ(control(id, 0, IPC_RMID, 0, {}, kBob), -EPERM);
  EXPECT_EQ(control(id, 0, IPC_RMID), 0);
  EXPECT_EQ(woken, (std::map<IpcTicket, int>{{waiter, -EIDRM}}));
  EXPECT_TRUE(sets.process_ended(10).empty());
}

TEST_F(SemaphoreSetsTest, ACancelledCallWaitsNoLonger) {
  const int id = get(1);
  const IpcTicket waiter = wait_for(10, id, {0, -1, 0});
  EXPECT_TRUE(sets.cancel(waiter));
  EXPECT_FALSE(sets.cancel(waiter));
  EXPECT_EQ(operate(11, id, {{0, 1, 0}}), 0);
  EXPECT_TRUE(woken.empty());
  EXPECT_EQ(value(id), 1);
}

TEST_F(SemaphoreSetsTest, AProcessEndUndoesWhatItDid) {
  const int id = get(2);
  EXPECT_EQ(operate(10, id, {{0, 5, SEM_UNDO}, {1, 1, 0}}), 0);
  EXPECT_EQ(operate(10, id, {{0, -2, SEM_UNDO}}), 0);
  const IpcTicket zero = wait_for(11, id, {0, 0, 0});
  take(sets.process_ended(10), kNobody);
  EXPECT_EQ(woken, (std::map<IpcTicket, int>{{zero, 0}}));
  EXPECT_EQ(value(id, 0), 0);
  EXPECT_EQ(value(id, 1), 1) << "without SEM_UNDO";
  EXPECT_EQ(sets.undo_count(), 0u);
}

TEST_F(SemaphoreSetsTest, UndoStopsAtZeroAndIsForgottenBySetval) {
  const int id = get(2);
  EXPECT_EQ(operate(10, id, {{0, 3, SEM_UNDO}, {1, 3, SEM_UNDO}}), 0);
  EXPECT_EQ(operate(11, id, {{0, -2, 0}}), 0);
  EXPECT_EQ(control(id, 1, SETVAL, 9), 0);
  take(sets.process_ended(10), kNobody);
  EXPECT_EQ(value(id, 0), 0);
  EXPECT_EQ(value(id, 1), 9);
}

TEST_F(SemaphoreSetsTest, AFailedNodesProcessesAreGone) {
  const int id = get(1);
  EXPECT_EQ(operate(110, id, {{0, 1, SEM_UNDO}}), 0);  // of node 1
  EXPECT_EQ(operate(210, id, {{0, -1, SEM_UNDO}}), 0);
  wait_for(111, id, {0, -1, 0});
  const IpcTicket elsewhere = wait_for(211, id, {0, -1, 0});
  take(sets.node_failed(NodeId{1}), kNobody);
  EXPECT_EQ(control(id, 0, GETNCNT), 1);
  take(sets.node_failed(NodeId{2}), kNobody);
  EXPECT_FALSE(woken.contains(elsewhere)) << "nobody is there to be told";
  EXPECT_EQ(control(id, 0, GETNCNT), 0);
  EXPECT_EQ(value(id), 1);
}

TEST_F(SemaphoreSetsTest, WhatADeadCallerTookIsGivenBack) {
  const int id = get(1);
  const sembuf take_one{0, -1, 0}, give_one{0, 1, 0};
  IpcCall call;
  call.args[0] = id;
  call.data.assign(reinterpret_cast<const char*>(&take_one), sizeof take_one);
  const IpcTicket waiter = wait_for(11, id, take_one);
  take(sets.take_back(call), kNobody);
  EXPECT_EQ(woken, (std::map<IpcTicket, int>{{waiter, 0}}));
  EXPECT_EQ(operate(12, id, {{0, 1, 0}}), 0);
  call.data.assign(reinterpret_cast<const char*>(&give_one), sizeof give_one);
  take(sets.take_back(call), kNobody);
  EXPECT_EQ(value(id), 1) << "what was given stays";
}

TEST_F(SemaphoreSetsTest, AllValuesAtOnce) {
  const int id = get(3);
  const unsigned short values[] = {1, 0, 5}, too_much[] = {1, 2, 40000};
  const IpcTicket waiter = wait_for(10, id, {2, -5, 0});
  EXPECT_EQ(control(id, 0, SETALL, 0, {reinterpret_cast<const char*>(too_much), 6}), -ERANGE);
  EXPECT_EQ(control(id, 0, SETALL, 0, {reinterpret_cast<const char*>(values), 6}), 0);
  EXPECT_EQ(woken, (std::map<IpcTicket, int>{{waiter, 0}}));
  EXPECT_EQ(control(id, 0, GETALL), 0);
  unsigned short read[3];
  ASSERT_EQ(out.size(), sizeof read);
  std::memcpy(read, out.data(), sizeof read);
  EXPECT_EQ(read[0], 1);
  EXPECT_EQ(read[2], 0);
  EXPECT_EQ(control(id, 0, SemaphoreSets::kCountCommand), 3);
}

TEST_F(SemaphoreSetsTest, PermissionsAreThoseOfTheMode) {
  const int id = get(1, 7, IPC_CREAT | 0640);
  EXPECT_EQ(get(1, 7, 0600, kBob), -EACCES);
  EXPECT_EQ(operate(10, id, {{0, 1, 0}}, kBob), -EACCES);
  EXPECT_EQ(control(id, 0, GETVAL, 0, {}, kBob), -EACCES);
  EXPECT_EQ(control(id, 0, IPC_STAT, 0, {}, kBob), -EACCES);
  EXPECT_EQ(control(0, 0, 20, 0, {}, kBob), id) << "SEM_STAT_ANY asks for nothing";
  semid_ds wanted{};
  wanted.sem_perm.uid = kBob;
  wanted.sem_perm.gid = kBob;
  wanted.sem_perm.mode = 0400;
  EXPECT_EQ(control(id, 0, IPC_SET, 0, ipc_bytes(wanted), kBob), -EPERM);
  EXPECT_EQ(control(id, 0, IPC_SET, 0, ipc_bytes(wanted)), 0);
  EXPECT_EQ(control(id, 0, GETVAL, 0, {}, kBob), 0);
  EXPECT_EQ(operate(10, id, {{0, 1, 0}}, kBob), -EACCES);
  EXPECT_EQ(operate(10, id, {{0, 0, 0}}, kBob), 0) << "waiting for zero only reads";
  capabilities = uint64_t{1} << CAP_IPC_OWNER;
  EXPECT_EQ(operate(10, id, {{0, 1, 0}}, kBob), 0);
}

TEST_F(SemaphoreSetsTest, StatTellsWhatIsThere) {
  get(1);
  const int id = get(4, 77, IPC_CREAT | 0604);
  EXPECT_EQ(operate(10, id, {{3, 1, 0}}), 0);
  EXPECT_EQ(control(1, 0, SEM_STAT), id) << "by index";
  semid_ds stat;
  ASSERT_EQ(out.size(), sizeof stat);
  std::memcpy(&stat, out.data(), sizeof stat);
  EXPECT_EQ(stat.sem_perm.__key, 77);
  EXPECT_EQ(stat.sem_perm.mode, 0604);
  EXPECT_EQ(stat.sem_perm.cuid, kAlice);
  EXPECT_EQ(stat.sem_nsems, 4u);
  EXPECT_GT(stat.sem_otime, stat.sem_ctime);
  EXPECT_EQ(control(2, 0, SEM_STAT), -EINVAL);
  EXPECT_EQ(control(0, 0, SEM_INFO), 1) << "the highest index in use";
  seminfo info;
  ASSERT_EQ(out.size(), sizeof info);
  std::memcpy(&info, out.data(), sizeof info);
  EXPECT_EQ(info.semusz, 2);
  EXPECT_EQ(info.semaem, 5);
  EXPECT_NE(sets.text().find("        77          1   604          4  1000  1000"),
            std::string::npos)
      << sets.text();
  EXPECT_EQ(control(id, 0, 99), -EINVAL);
}

}  // namespace
}  // namespace krg
