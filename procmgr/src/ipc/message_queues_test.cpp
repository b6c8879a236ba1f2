// What msgop(2), msgctl(2) and msgget(2) promise, on the state machine alone.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ipc/message_queues.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cstring>

namespace krg {
namespace {

constexpr uid_t kAlice = 1000, kBob = 1001;
constexpr int kCopy = 040000;

struct Answer {
  int result = 0;  // the value, or -errno
  int64_t type = 0;
  std::string text;
  bool operator==(const Answer&) const = default;
};

class MessageQueuesTest : public ::testing::Test {
 protected:
  static constexpr int kBlocked = -999;
  Answer make(int number, std::array<int64_t, 4> args, std::string data = {}, uid_t uid = kAlice) {
    IpcCall call;
    call.ticket = last_ticket = {NodeId{1}, ++tickets_};
    call.caller = {static_cast<pid_t>(100 + tickets_), uid, uid, capabilities, {}};
    call.now_s = 5000;
    call.number = number;
    call.args = args;
    call.data = std::move(data);
    return take(queues.step(call), call.ticket);
  }
  Answer take(const IpcDones& done, const IpcTicket& own) {
    woken.clear();
    Answer answer{kBlocked, 0, {}};
    for (const IpcDone& one : done) {
      Answer told{one.error != 0 ? -one.error : static_cast<int>(one.value), 0, one.data};
      (one.ticket == own ? answer : woken[one.ticket]) = told;
    }
    return answer;
  }
  int get(key_t key = IPC_PRIVATE, int flags = IPC_CREAT | 0600, uid_t uid = kAlice) {
    return make(SYS_msgget, {key, flags, 0, 0}, {}, uid).result;
  }
  int send(int id, int64_t type, const std::string& text, int flags = 0) {
    return make(SYS_msgsnd, {id, type, static_cast<int64_t>(text.size()), flags}, text).result;
  }
  static Answer with_type(Answer raw) {
    if (raw.text.size() < sizeof raw.type) return raw;
    std::memcpy(&raw.type, raw.text.data(), sizeof raw.type);
    raw.text.erase(0, sizeof raw.type);
    return raw;
  }
  Answer receive(int id, int64_t type = 0, int flags = IPC_NOWAIT, int64_t size = 100) {
    return with_type(make(SYS_msgrcv, {id, size, type, flags}));
  }
  IpcTicket wait_for(int id, int64_t type, int flags = 0, int64_t size = 100) {
    EXPECT_EQ(receive(id, type, flags, size).result, kBlocked);
    return last_ticket;
  }
  Answer was_woken(const IpcTicket& ticket) {
    EXPECT_TRUE(woken.contains(ticket));
    return with_type(woken[ticket]);
  }
  msqid_ds stat(int id) {
    msqid_ds out{};
    const Answer answer = make(SYS_msgctl, {id, IPC_STAT, 0, 0});
    EXPECT_EQ(answer.text.size(), sizeof out);
    std::memcpy(&out, answer.text.data(), sizeof out);
    return out;
  }
  int change(int id, const msqid_ds& wanted, uid_t uid = kAlice) {
    return make(SYS_msgctl, {id, IPC_SET, 0, 0}, ipc_bytes(wanted), uid).result;
  }

  MessageQueues queues;
  IpcTicket last_ticket;
  std::map<IpcTicket, Answer> woken;
  uint64_t capabilities = 0;

 private:
  uint64_t tickets_ = 0;
};

TEST_F(MessageQueuesTest, TypesChooseMessages) {
  const int id = get();
  for (int64_t type : {5, 2, 3, 2}) EXPECT_EQ(send(id, type, std::to_string(type)), 0);
  EXPECT_EQ(receive(id, 3), (Answer{1, 3, "3"}));
  EXPECT_EQ(receive(id, 3).result, -ENOMSG);
  EXPECT_EQ(receive(id, -4), (Answer{1, 2, "2"})) << "the lowest up to 4, oldest first";
  EXPECT_EQ(receive(id, -1).result, -ENOMSG);
  EXPECT_EQ(receive(id, 5, IPC_NOWAIT | MSG_EXCEPT), (Answer{1, 2, "2"}));
  EXPECT_EQ(receive(id), (Answer{1, 5, "5"}));
  EXPECT_EQ(receive(id).result, -ENOMSG);
}

TEST_F(MessageQueuesTest, LongMessagesAreRefusedOrCut) {
  const int id = get();
  EXPECT_EQ(send(id, 1, "abcdef"), 0);
  EXPECT_EQ(receive(id, 0, IPC_NOWAIT, 3).result, -E2BIG);
  EXPECT_EQ(receive(id, 0, IPC_NOWAIT | kCopy), (Answer{6, 1, "abcdef"})) << "it stays";
  EXPECT_EQ(receive(id, 0, IPC_NOWAIT | MSG_NOERROR, 3), (Answer{3, 1, "abc"}));
  EXPECT_EQ(receive(id).result, -ENOMSG) << "the rest is lost";
  EXPECT_EQ(receive(id, 0, kCopy).result, -EINVAL);
}

TEST_F(MessageQueuesTest, BadArgumentsAreRefused) {
  const int id = get();
  EXPECT_EQ(send(id, 0, "x"), -EINVAL);
  EXPECT_EQ(send(id, 1, std::string(8193, 'x')), -EINVAL);
  EXPECT_EQ(send(id + 1, 1, "x"), -EINVAL);
  EXPECT_EQ(receive(id, 0, IPC_NOWAIT, -1).result, -EINVAL);
  EXPECT_EQ(send(id, 1, ""), 0);
  EXPECT_EQ(receive(id), (Answer{0, 1, ""}));
}

TEST_F(MessageQueuesTest, AReceiverWaitsForItsType) {
  const int id = get();
  const IpcTicket third = wait_for(id, 3), any = wait_for(id, 0);
  EXPECT_EQ(send(id, 4, "four"), 0);
  EXPECT_EQ(was_woken(any), (Answer{4, 4, "four"}));
  EXPECT_EQ(send(id, 3, "three"), 0);
  EXPECT_EQ(was_woken(third), (Answer{5, 3, "three"}));
  EXPECT_EQ(stat(id).msg_qnum, 0u);
}

TEST_F(MessageQueuesTest, AReceiverWithTooSmallABufferIsToldSo) {
  const int id = get();
  const IpcTicket small = wait_for(id, 0, 0, 2), large = wait_for(id, 0);
  EXPECT_EQ(send(id, 1, "abc"), 0);
  EXPECT_EQ(was_woken(small).result, -E2BIG);
  EXPECT_EQ(was_woken(large), (Answer{3, 1, "abc"}));
}

TEST_F(MessageQueuesTest, SendersWaitForRoom) {
  const int id = get();
  const std::string half(8192, 'x');
  EXPECT_EQ(send(id, 1, half), 0);
  EXPECT_EQ(send(id, 2, half), 0);
  EXPECT_EQ(send(id, 3, "x", IPC_NOWAIT), -EAGAIN);
  EXPECT_EQ(send(id, 3, "abc"), kBlocked);
  const IpcTicket sender = last_ticket;
  EXPECT_EQ(stat(id).__msg_cbytes, 16384u);
  EXPECT_EQ(receive(id, 1, 0, 8192).result, 8192);
  EXPECT_EQ(was_woken(sender).result, 0);
  EXPECT_EQ(receive(id, 3), (Answer{3, 3, "abc"}));
}

TEST_F(MessageQueuesTest, RemovalWakesWithEidrm) {
  const int id = get();
  const IpcTicket receiver = wait_for(id, 1);
  EXPECT_EQ(make(SYS_msgctl, {id, IPC_RMID, 0, 0}, {}, kBob).result, -EPERM);
  EXPECT_EQ(make(SYS_msgctl, {id, IPC_RMID, 0, 0}).result, 0);
  EXPECT_EQ(was_woken(receiver).result, -EIDRM);
  EXPECT_EQ(send(id, 1, "x"), -EINVAL);
}

TEST_F(MessageQueuesTest, CancelledAndLostCallsWaitNoLonger) {
  const int id = get();
  const IpcTicket first = wait_for(id, 0);
  EXPECT_TRUE(queues.cancel(first));
  EXPECT_FALSE(queues.cancel(first));
  wait_for(id, 0);
  queues.node_failed(NodeId{1});
  EXPECT_EQ(send(id, 1, "x"), 0);
  EXPECT_TRUE(woken.empty());
}

TEST_F(MessageQueuesTest, AMessageGivenBackIsTheNext) {
  const int id = get();
  EXPECT_EQ(send(id, 1, "first"), 0);
  EXPECT_EQ(send(id, 1, "second"), 0);
  const Answer taken = make(SYS_msgrcv, {id, 100, 0, 0});
  take(queues.give_back(id, taken.text, 6000), {});
  EXPECT_EQ(receive(id), (Answer{5, 1, "first"}));
  EXPECT_EQ(receive(id), (Answer{6, 1, "second"}));
  const IpcTicket waiter = wait_for(id, 0);
  take(queues.give_back(id, taken.text, 6000), {});
  EXPECT_EQ(was_woken(waiter), (Answer{5, 1, "first"}));
}

TEST_F(MessageQueuesTest, LimitsAreTheOwnersWithinTheSystems) {
  const int id = get();
  msqid_ds wanted = stat(id);
  EXPECT_EQ(wanted.msg_qbytes, 16384u);
  wanted.msg_qbytes = 10;
  EXPECT_EQ(change(id, wanted, kBob), -EPERM);
  EXPECT_EQ(change(id, wanted), 0);
  EXPECT_EQ(send(id, 1, "01234567890", IPC_NOWAIT), -EAGAIN);
  EXPECT_EQ(send(id, 1, "01234567890"), kBlocked);
  const IpcTicket sender = last_ticket;
  wanted.msg_qbytes = 20000;
  EXPECT_EQ(change(id, wanted), -EPERM);
  capabilities = uint64_t{1} << CAP_SYS_RESOURCE;
  EXPECT_EQ(change(id, wanted), 0);
  EXPECT_EQ(was_woken(sender).result, 0);
}

TEST_F(MessageQueuesTest, WhoMayNoLongerReadWaitsNoLonger) {
  const int id = get(9, IPC_CREAT | 0666);
  EXPECT_EQ(make(SYS_msgrcv, {id, 10, 0, 0}, {}, kBob).result, kBlocked);
  const IpcTicket bob = last_ticket;
  msqid_ds wanted = stat(id);
  wanted.msg_perm.mode = 0600;
  EXPECT_EQ(change(id, wanted), 0);
  EXPECT_EQ(was_woken(bob).result, -EACCES);
  EXPECT_EQ(get(9, 0600, kBob), -EACCES);
}

TEST_F(MessageQueuesTest, StatAndInfoTellWhatIsThere) {
  const int id = get(5);
  EXPECT_EQ(send(id, 1, "abc"), 0);
  const auto sender = static_cast<pid_t>(100 + last_ticket.number);
  const msqid_ds told = stat(id);
  EXPECT_EQ(told.msg_qnum, 1u);
  EXPECT_EQ(told.__msg_cbytes, 3u);
  EXPECT_EQ(told.msg_lspid, sender);
  EXPECT_EQ(told.msg_stime, 5000);
  EXPECT_EQ(told.msg_rtime, 0);
  const Answer info = make(SYS_msgctl, {0, MSG_INFO, 0, 0});
  msginfo numbers;
  ASSERT_EQ(info.text.size(), sizeof numbers);
  std::memcpy(&numbers, info.text.data(), sizeof numbers);
  EXPECT_EQ(numbers.msgpool, 1);
  EXPECT_EQ(numbers.msgmap, 1);
  EXPECT_EQ(numbers.msgtql, 3);
  EXPECT_EQ(make(SYS_msgctl, {0, MSG_STAT, 0, 0}).result, id);
  EXPECT_EQ(make(SYS_msgctl, {1, MSG_STAT, 0, 0}).result, -EINVAL);
  EXPECT_NE(queues.text().find("         5          0   600           3          1"),
            std::string::npos)
      << queues.text();
}

}  // namespace
}  // namespace krg
