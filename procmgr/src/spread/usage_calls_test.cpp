// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/usage_calls.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/times.h>
#include <unistd.h>

#include <cstring>

namespace krg {
namespace {

constexpr MoreUsage kMore{{1'700'000'000, 600'000'000}, {900'000'000, 20'000'000}};

std::optional<UsageCall> called(long number, uint64_t first, uint64_t second = 4096) {
  user_regs_struct call{};
  call.orig_rax = static_cast<uint64_t>(number);
  call.rdi = first;
  call.rsi = second;
  return usage_call(call);
}

std::optional<UsageCall> clock_call(clockid_t clock) {
  return called(SYS_clock_gettime, static_cast<uint32_t>(clock));
}

template <class T>
T answer(const UsageCall& call, const T& before) {
  const std::string after =
      with_more(call, {reinterpret_cast<const char*>(&before), sizeof before}, kMore, 100);
  T value{};
  std::memcpy(&value, after.data(), sizeof value);
  return value;
}

TEST(UsageCalls, OfTheProcessAndOfOneThread) {
  auto process = called(SYS_getrusage, static_cast<uint64_t>(RUSAGE_SELF));
  ASSERT_TRUE(process);
  EXPECT_FALSE(process->of_thread);
  EXPECT_EQ(process->answer, RemoteAddr{4096});
  auto thread = called(SYS_getrusage, RUSAGE_THREAD);
  ASSERT_TRUE(thread);
  EXPECT_TRUE(thread->of_thread);
  rusage before{};
  before.ru_utime = {2, 500'000};
  before.ru_nvcsw = 7;
  const rusage after = answer(*process, before);
  EXPECT_EQ(after.ru_utime.tv_sec, 4);
  EXPECT_EQ(after.ru_utime.tv_usec, 200'000);
  EXPECT_EQ(after.ru_stime.tv_usec, 600'000);
  EXPECT_EQ(after.ru_nvcsw, 7);
}

TEST(UsageCalls, OfTheChildThatWaitidNames) {
  user_regs_struct call{};
  call.orig_rax = SYS_waitid;
  call.r8 = 8192;
  EXPECT_FALSE(usage_call(call));  // nobody can tell which child
  call.rdx = 4096;
  auto wait = usage_call(call);
  ASSERT_TRUE(wait && wait->of_children);
  EXPECT_EQ(wait->info, RemoteAddr{4096});
  EXPECT_EQ(wait->answer, RemoteAddr{8192});
  call.r8 = 0;
  EXPECT_FALSE(usage_call(call));
}

TEST(UsageCalls, OfChildren) {
  auto all = called(SYS_getrusage, static_cast<uint64_t>(RUSAGE_CHILDREN));
  ASSERT_TRUE(all && all->of_children);
  EXPECT_EQ(answer(*all, rusage{}).ru_utime.tv_usec, 900'000);
  user_regs_struct call{};
  call.orig_rax = SYS_wait4;
  EXPECT_FALSE(usage_call(call)) << "it has no place for it";
  call.r10 = 12288;
  auto one = usage_call(call);
  ASSERT_TRUE(one && one->of_children);
  EXPECT_EQ(one->answer, RemoteAddr{12288});
}

TEST(UsageCalls, Times) {
  EXPECT_FALSE(called(SYS_times, 0));
  auto call = called(SYS_times, 8192);
  ASSERT_TRUE(call);
  const struct tms after = answer(*call, tms{1, 2, 3, 4});
  EXPECT_EQ(after.tms_utime, 171);
  EXPECT_EQ(after.tms_stime, 62);
  EXPECT_EQ(after.tms_cutime, 93);
  EXPECT_EQ(after.tms_cstime, 6);
}

TEST(UsageCalls, Clocks) {
  auto process = clock_call(CLOCK_PROCESS_CPUTIME_ID);
  ASSERT_TRUE(process);
  EXPECT_FALSE(process->of_thread);
  EXPECT_EQ(process->pid, 0);
  auto thread = clock_call(CLOCK_THREAD_CPUTIME_ID);
  ASSERT_TRUE(thread);
  EXPECT_TRUE(thread->of_thread);
  EXPECT_FALSE(clock_call(CLOCK_REALTIME));
  EXPECT_FALSE(clock_call(CLOCK_MONOTONIC));
  const timespec after = answer(*process, timespec{1, 800'000'000});
  EXPECT_EQ(after.tv_sec, 4);
  EXPECT_EQ(after.tv_nsec, 100'000'000);
}

TEST(UsageCalls, ClocksByNumber) {
  clockid_t clock{};
  ASSERT_EQ(pthread_getcpuclockid(pthread_self(), &clock), 0);
  auto thread = clock_call(clock);
  ASSERT_TRUE(thread);
  EXPECT_TRUE(thread->of_thread);
  EXPECT_EQ(thread->pid, gettid());
  ASSERT_EQ(clock_getcpuclockid(getpid(), &clock), 0);
  auto process = clock_call(clock);
  ASSERT_TRUE(process);
  EXPECT_FALSE(process->of_thread);
  EXPECT_EQ(process->pid, getpid());
  auto user = clock_call((clock & ~3) | 1);
  ASSERT_TRUE(user);
  EXPECT_EQ(answer(*user, timespec{0, 0}).tv_nsec, 700'000'000);
  EXPECT_FALSE(clock_call((~3 << 3) | 3)) << "a clock that a device has";
}

}  // namespace
}  // namespace krg
