// What mq_open(3), mq_send(3), mq_receive(3), mq_notify(3) and mq_unlink(3) promise, on the state
// machine alone. SPDX-License-Identifier: GPL-2.0-or-later
#include "ipc/posix_queues.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <csignal>
#include <cstring>

namespace krg {
namespace {

constexpr uid_t kAlice = 1000, kBob = 1001;
constexpr int kBlocked = -999;
using Op = PosixQueueOp;

struct Answer {
  int64_t result = 0;  // the value, or -errno
  std::string data;
};

class PosixQueuesTest : public ::testing::Test {
 protected:
  Answer make(Op op, std::array<int64_t, 4> args, std::string data = {}, uid_t uid = kAlice) {
    IpcCall call;
    call.ticket = last_ticket = {NodeId{node}, ++tickets_};
    call.caller = {process, uid, uid, capabilities, {}};
    call.now_s = 5000;
    call.number = static_cast<int>(op);
    call.args = args;
    call.data = std::move(data);
    return take(queues.step(call), call.ticket);
  }
  Answer take(const IpcDones& done, const IpcTicket& own) {
    woken.clear();
    Answer answer{kBlocked, {}};
    for (const IpcDone& one : done)
      (one.ticket == own ? answer : woken[one.ticket]) = {one.error ? -one.error : one.value,
                                                          one.data};
    return answer;
  }
  int64_t open(const std::string& name, int flags = O_CREAT | O_RDWR, int64_t messages = -1,
               int64_t size = 0, uid_t uid = kAlice) {
    const PosixQueueLimits limits{819200};
    return make(Op::kOpen, {flags, 0640, messages, size}, ipc_bytes(limits) + name, uid).result;
  }
  int64_t send(int64_t queue, const std::string& text, int64_t priority = 0, int nonblock = 0) {
    return make(Op::kSend, {queue, priority, nonblock, 0}, text).result;
  }
  std::string receive(int64_t queue, int nonblock = 1, int64_t size = 8192) {
    return told(make(Op::kReceive, {queue, size, nonblock, 0}));
  }
  // "PRIORITY TEXT", or the error.
  static std::string told(const Answer& answer) {
    if (answer.result == kBlocked) return "waits";
    if (answer.result < 0) return strerror(static_cast<int>(-answer.result));
    uint32_t priority = 0;
    std::memcpy(&priority, answer.data.data(), sizeof priority);
    return std::to_string(priority) + " " + answer.data.substr(sizeof priority);
  }
  int64_t events(int64_t queue, bool watches = false) {
    return make(Op::kPoll, {queue, watches, 0, 0}).result;
  }
  PosixQueueState state(int64_t queue) {
    PosixQueueState out;
    const Answer answer = make(Op::kStat, {queue, 0, 0, 0});
    if (answer.data.size() == sizeof out) std::memcpy(&out, answer.data.data(), sizeof out);
    return out;
  }

  PosixQueues queues;
  IpcTicket last_ticket;
  std::map<IpcTicket, Answer> woken;
  uint64_t capabilities = 0;
  uint16_t node = 1;
  pid_t process = 100;

 private:
  uint64_t tickets_ = 0;
};

TEST_F(PosixQueuesTest, NamesAreFoundMadeAndRefused) {
  EXPECT_EQ(open("q", O_RDWR), -ENOENT);
  const int64_t queue = open("q");
  ASSERT_GT(queue, 0);
  EXPECT_EQ(open("q", O_RDONLY), queue);
  EXPECT_EQ(open("q", O_CREAT | O_EXCL | O_RDWR), -EEXIST);
  EXPECT_EQ(open("a/b"), -EACCES);
  EXPECT_EQ(open(""), -ENOENT);
  EXPECT_EQ(open(std::string(256, 'n')), -ENAMETOOLONG);
  EXPECT_EQ(open("q", O_RDWR, -1, 0, kBob), -EACCES);
  const Answer names = make(Op::kList, {});
  EXPECT_EQ(names.data, std::string("q\0", 2));
}

TEST_F(PosixQueuesTest, AttributesAreBounded) {
  EXPECT_EQ(open("a", O_CREAT | O_RDWR, 0, 1), -EINVAL);
  EXPECT_EQ(open("a", O_CREAT | O_RDWR, 11, 1), -EINVAL);
  EXPECT_EQ(open("a", O_CREAT | O_RDWR, 10, 8193), -EINVAL);
  const int64_t queue = open("a", O_CREAT | O_RDWR, 2, 16);
  EXPECT_EQ(state(queue).most_messages, 2);
  EXPECT_EQ(state(queue).message_bytes, 16);
  EXPECT_EQ(send(queue, std::string(17, 'x')), -EMSGSIZE);
  EXPECT_EQ(receive(queue, 1, 15), strerror(EMSGSIZE));
  capabilities = 1ull << CAP_SYS_RESOURCE;
  EXPECT_GT(open("b", O_CREAT | O_RDWR, 100, 16), 0);
  EXPECT_EQ(open("c", O_CREAT | O_RDWR, 65536, 8192), -EMFILE);
}

TEST_F(PosixQueuesTest, HighestPriorityFirstThenOldest) {
  const int64_t queue = open("q");
  send(queue, "a", 1);
  send(queue, "b", 5);
  send(queue, "c", 1);
  send(queue, "d", 5);
  EXPECT_EQ(send(queue, "e", 32768), -EINVAL);
  EXPECT_EQ(receive(queue), "5 b");
  EXPECT_EQ(receive(queue), "5 d");
  EXPECT_EQ(receive(queue), "1 a");
  EXPECT_EQ(receive(queue), "1 c");
  EXPECT_EQ(receive(queue), strerror(EAGAIN));
}

TEST_F(PosixQueuesTest, ReceiversAndSendersWait) {
  const int64_t queue = open("q", O_CREAT | O_RDWR, 1, 16);
  EXPECT_EQ(receive(queue, 0), "waits");
  const IpcTicket receiver = last_ticket;
  EXPECT_EQ(send(queue, "one", 2), 0);
  EXPECT_EQ(told(woken[receiver]), "2 one");
  EXPECT_EQ(send(queue, "two", 3), 0);
  EXPECT_EQ(send(queue, "three", 4, 1), -EAGAIN);
  EXPECT_EQ(send(queue, "three", 4), kBlocked);
  const IpcTicket sender = last_ticket;
  EXPECT_EQ(send(queue, "four", 9), kBlocked);
  EXPECT_TRUE(queues.cancel(last_ticket));
  EXPECT_FALSE(queues.cancel(last_ticket));
  EXPECT_EQ(receive(queue), "3 two");
  EXPECT_EQ(woken.at(sender).result, 0);
  EXPECT_EQ(receive(queue), "4 three");
}

TEST_F(PosixQueuesTest, LivesUntilNameAndUsesAreGone) {
  const int64_t queue = open("q");
  node = 2;
  EXPECT_EQ(make(Op::kUse, {queue, O_RDONLY, 0, 0}).result, 0);
  EXPECT_EQ(make(Op::kUnlink, {}, "q", kBob).result, -EPERM);
  EXPECT_EQ(make(Op::kUnlink, {}, "q").result, 0);
  EXPECT_EQ(make(Op::kUnlink, {}, "q").result, -ENOENT);
  EXPECT_EQ(send(queue, "still there"), 0);
  EXPECT_NE(open("q"), queue);
  EXPECT_EQ(make(Op::kDrop, {queue, 0, 0, 0}).result, 0);
  EXPECT_EQ(receive(queue), "0 still there");
  queues.node_failed(NodeId{1});
  EXPECT_EQ(send(queue, "gone"), -EBADF);
}

TEST_F(PosixQueuesTest, OneProcessIsToldOnce) {
  const int64_t queue = open("q");
  EXPECT_EQ(make(Op::kNotify, {queue, SIGEV_SIGNAL, 65, 0}).result, -EINVAL);
  EXPECT_EQ(make(Op::kNotify, {queue, SIGEV_SIGNAL, SIGUSR1, 42}).result, 0);
  process = 200;
  EXPECT_EQ(make(Op::kNotify, {queue, SIGEV_NONE, 0, 0}).result, -EBUSY);
  EXPECT_EQ(make(Op::kNotify, {queue, -1, 0, 0}).result, 0);  // is not its own
  EXPECT_EQ(state(queue).notify_pid, 100);
  send(queue, "one");
  send(queue, "two");
  const auto notices = queues.take_notices();
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_EQ(notices[0].process, 100);
  EXPECT_EQ(notices[0].sender, 200);
  EXPECT_EQ(notices[0].value, 42);
  EXPECT_EQ(make(Op::kNotify, {queue, SIGEV_SIGNAL, SIGUSR1, 0}).result, 0);
  receive(queue);
  receive(queue);
  queues.process_ended(200);
  send(queue, "three");
  EXPECT_TRUE(queues.take_notices().empty());
}

// A message that goes to who waits leaves the queue as it was.
TEST_F(PosixQueuesTest, NobodyIsToldOfWhatAReceiverGets) {
  const int64_t queue = open("q");
  make(Op::kNotify, {queue, SIGEV_SIGNAL, SIGUSR1, 0});
  receive(queue, 0);
  send(queue, "one");
  EXPECT_TRUE(queues.take_notices().empty());
  EXPECT_EQ(state(queue).notify_pid, 100);
}

TEST_F(PosixQueuesTest, PollersHearOfTheNextChange) {
  const int64_t queue = open("q", O_CREAT | O_RDWR, 1, 16);
  EXPECT_EQ(events(queue, true), POLLOUT | POLLWRNORM);
  EXPECT_TRUE(queues.take_changes().empty());
  send(queue, "one");
  const auto changes = queues.take_changes();
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0], std::make_pair(NodeId{1}, queue));
  EXPECT_EQ(events(queue), POLLIN | POLLRDNORM);
  receive(queue);
  EXPECT_TRUE(queues.take_changes().empty());
}

TEST_F(PosixQueuesTest, WhatADeadReceiverGotIsTheNextOne) {
  const int64_t queue = open("q");
  send(queue, "later", 3);
  const uint32_t priority = 3;
  EXPECT_TRUE(queues.give_back(queue, ipc_bytes(priority) + "first").empty());
  EXPECT_EQ(receive(queue), "3 first");
  EXPECT_EQ(receive(queue), "3 later");
}

}  // namespace
}  // namespace krg
