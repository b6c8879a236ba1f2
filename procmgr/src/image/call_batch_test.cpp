// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/call_batch.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "image/testing/frozen_process_fixture.h"

namespace krg {
namespace {

using testing::FrozenProcessTest;
using testing::Shared;

class CallBatchTest : public FrozenProcessTest {
 protected:
  std::shared_ptr<FrozenProcess> start_and_freeze(const std::function<void()>& prepare = [] {}) {
    pid = start([this, prepare] {
      prepare();
      while (!shared->go_on) ++shared->count;
      return static_cast<int>(shared->value);
    });
    EXPECT_TRUE(is_counting());
    auto frozen = freeze(pid);
    EXPECT_TRUE(frozen) << frozen.error().message();
    return frozen ? *frozen : nullptr;
  }
  pid_t pid = 0;
};

TEST_F(CallBatchTest, CallsAreMadeInOrderWithTheirData) {
  auto frozen = start_and_freeze();
  ASSERT_TRUE(frozen);
  for (int round = 0; round < 3; ++round) {
    CallBatch batch(*frozen);
    const RemoteAddr name = batch.put(std::array<char, 16>{"of a batch"});
    const RemoteAddr told = batch.put(std::array<char, 16>{});
    const size_t set = batch.add(SYS_prctl, {PR_SET_NAME, name.value});
    const size_t get = batch.add(SYS_prctl, {PR_GET_NAME, told.value});
    const size_t fails = batch.add(SYS_close, {999});
    const size_t id = batch.add(SYS_getpid, {});
    ASSERT_TRUE(batch.run());
    EXPECT_EQ(batch.result(set), 0);
    EXPECT_EQ(batch.result(get), 0);
    EXPECT_EQ(batch.result(fails), -EBADF);
    EXPECT_EQ(batch.result(id), pid);
    const auto text = batch.value<std::array<char, 16>>(told);
    EXPECT_STREQ(text.data(), "of a batch");
    EXPECT_EQ(frozen->call(SYS_getpid, {}), pid);  // one alone works in between
  }
  frozen.reset();
  EXPECT_TRUE(is_counting());
  shared->go_on = true;
  EXPECT_EQ(end_of(pid), 0);
}

TEST_F(CallBatchTest, ThereMayBeMoreCallsThanRoom) {
  auto frozen = start_and_freeze();
  ASSERT_TRUE(frozen);
  CallBatch batch(*frozen);
  for (uint64_t i = 0; i < 1000; ++i) batch.add(i % 2 ? SYS_getpid : SYS_close, {5000 + i});
  ASSERT_TRUE(batch.run());
  for (size_t i = 0; i < batch.size(); ++i) EXPECT_EQ(batch.result(i), i % 2 ? pid : -EBADF) << i;
  CallBatch too_much(*frozen);
  too_much.put(std::string(FrozenProcess::kScratchBytes + 1, 'x'));
  EXPECT_EQ(too_much.run().error().errno_or(0), E2BIG);
}

// The signal by which a batch ends is the program's, too.
TEST_F(CallBatchTest, TheProgramsOwnTrapSignalsStay) {
  auto frozen = start_and_freeze([this] {
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
      auto* memory = static_cast<Shared*>(info->si_value.sival_ptr);
      memory->value = memory->value + 1;
    };
    sigaction(SIGTRAP, &action, nullptr);
  });
  ASSERT_TRUE(frozen);
  sigval value;
  value.sival_ptr = shared;
  ASSERT_EQ(sigqueue(pid, SIGTRAP, value), 0);
  CallBatch batch(*frozen);
  batch.add(SYS_getpid, {});
  ASSERT_TRUE(batch.run());
  EXPECT_EQ(batch.result(0), pid);
  ASSERT_TRUE(batch.run());
  EXPECT_EQ(shared->value, 0u);
  frozen.reset();
  EXPECT_TRUE(run_until([this] { return shared->value == 1; }));
  shared->go_on = true;
  EXPECT_EQ(end_of(pid), 1);
}

TEST_F(CallBatchTest, OneThatIsStoppedOrKilledMeanwhile) {
  auto frozen = start_and_freeze();
  ASSERT_TRUE(frozen);
  kill(pid, SIGSTOP);
  CallBatch batch(*frozen);
  batch.add(SYS_getpid, {});
  ASSERT_TRUE(batch.run());
  EXPECT_EQ(batch.result(0), pid);
  kill(pid, SIGKILL);
  EXPECT_FALSE(batch.run());
  frozen.reset();
  EXPECT_EQ(end_of(pid), 128 + SIGKILL);
}

// A program that may not make memory executable (systemd's MemoryDenyWriteExecute) is no obstacle.
TEST_F(CallBatchTest, NoMemoryIsWritableAndExecutable) {
  constexpr int kSetMemoryDenyWriteExecute = 65;  // PR_SET_MDWE
  auto frozen = start_and_freeze([] { prctl(kSetMemoryDenyWriteExecute, 1, 0, 0, 0); });
  ASSERT_TRUE(frozen);
  CallBatch batch(*frozen);
  batch.add(SYS_getpid, {});
  ASSERT_TRUE(batch.run());
  EXPECT_EQ(batch.result(0), pid);
}

}  // namespace
}  // namespace krg
