// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/call_arguments.h"

#include <gtest/gtest.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/syscall.h>

#include <array>
#include <cstring>
#include <string>

namespace krg {
namespace {

using Use = CallArgument::Use;

user_regs_struct call_of(long number, const std::array<uint64_t, 6>& arguments) {
  user_regs_struct call{};
  call.orig_rax = static_cast<uint64_t>(number);
  for (unsigned i = 0; i < arguments.size(); ++i) set_argument(call, i, arguments[i]);
  return call;
}

TEST(CallArguments, AreThoseOfTheCall) {
  const auto call = call_of(SYS_getpid, {1, 2, 3, 4, 5, 6});
  EXPECT_EQ(call.rdi, 1u);
  EXPECT_EQ(call.r10, 4u);
  for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(argument(call, i), i + 1);
  EXPECT_TRUE(arguments_for_krgd(call).empty());
}

TEST(CallArguments, NullIsNoMemory) {
  EXPECT_EQ(arguments_for_krgd(call_of(SYS_prlimit64, {7, 0, 0x1000, 0x2000})).size(), 2u);
  const auto one = arguments_for_krgd(call_of(SYS_prlimit64, {7, 0, 0, 0x2000}));
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].index, 3u);
  EXPECT_TRUE(one[0].is_written());
  EXPECT_TRUE(arguments_for_krgd(call_of(SYS_semop, {7, 0x1000, 0})).empty());
}

TEST(CallArguments, AWaitWithoutUsageIsTheKernels) {
  EXPECT_TRUE(arguments_for_krgd(call_of(SYS_wait4, {0, 0x1000, 0, 0})).empty());
  EXPECT_EQ(arguments_for_krgd(call_of(SYS_wait4, {0, 0x1000, 0, 0x2000})).size(), 2u);
  EXPECT_EQ(arguments_for_krgd(call_of(SYS_waitid, {0, 0, 0x1000, 0, 0x2000})).size(), 2u);
}

TEST(CallArguments, GoByWhatIsAskedFor) {
  const auto set = arguments_for_krgd(call_of(SYS_semctl, {7, 0, IPC_SET, 0x1000}));
  const auto get = arguments_for_krgd(call_of(SYS_semctl, {7, 0, IPC_STAT, 0x1000}));
  ASSERT_EQ(set.size(), 1u);
  ASSERT_EQ(get.size(), 1u);
  EXPECT_FALSE(set[0].is_written());
  EXPECT_TRUE(get[0].is_written());
  EXPECT_TRUE(arguments_for_krgd(call_of(SYS_semctl, {7, 0, SETVAL, 0x1000})).empty());
  EXPECT_TRUE(arguments_for_krgd(call_of(SYS_msgctl, {7, IPC_RMID, 0x1000})).empty());
}

TEST(CallArguments, AreWrittenAsFarAsTheResultSays) {
  const auto message = arguments_for_krgd(call_of(SYS_msgrcv, {7, 0x1000, 100, 0, 0})).at(0);
  EXPECT_EQ(message.bytes, 108u);
  EXPECT_EQ(bytes_written(message, 5, {}), 13u);
  EXPECT_EQ(bytes_written(message, 1000, {}), 108u);
  const auto mask = arguments_for_krgd(call_of(SYS_sched_getaffinity, {0, 128, 0x1000})).at(0);
  EXPECT_EQ(bytes_written(mask, 8, {}), 8u);
  const auto usage = arguments_for_krgd(call_of(SYS_getrusage, {0, 0x1000})).at(0);
  EXPECT_EQ(bytes_written(usage, 0, {}), sizeof(rusage));
  const auto taken = arguments_for_krgd(call_of(SYS_semop, {7, 0x1000, 1})).at(0);
  EXPECT_EQ(bytes_written(taken, 0, {}), 0u);
  const auto attributes = arguments_for_krgd(call_of(SYS_sched_getattr, {7, 0x1000, 4096})).at(0);
  const uint32_t size = 56;
  std::string contents(128, '\0');
  EXPECT_EQ(bytes_written(attributes, 0, contents), 0u);
  std::memcpy(contents.data(), &size, sizeof size);
  EXPECT_EQ(bytes_written(attributes, 0, contents), size);
}

}  // namespace
}  // namespace krg
