// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/short_slice.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

namespace krg {
namespace {

using namespace std::chrono_literals;

SchedulingOfThread attributes_here() {
  SchedulingOfThread attributes{};
  EXPECT_EQ(syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0), 0);
  return attributes;
}

TEST(ShortSlice, IsTheThreadsOwnAndNotItsChildrens) {
  std::thread([] {
    ASSERT_EQ(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 3), 0);
    const SchedulingOfThread before = attributes_here();
    Status taken = take_short_slices(200us);
    ASSERT_TRUE(taken) << taken.error().message();
    const SchedulingOfThread after = attributes_here();
    EXPECT_EQ(after.nice, before.nice);
    EXPECT_EQ(after.policy, before.policy);
    if (before.runtime == 0) return;  // a kernel that knows no such turns
    EXPECT_EQ(after.runtime, 200'000u);
    const pid_t child = fork();
    if (child == 0) _exit(attributes_here().runtime == 200'000 ? 1 : 0);
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }).join();
}

}  // namespace
}  // namespace krg
