// SPDX-License-Identifier: GPL-2.0-or-later
#include "faulting_instruction.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <initializer_list>
#include <thread>
#include <vector>

namespace krg {
namespace {

bool is_atomic_code(std::initializer_list<unsigned> code) {
  std::vector<std::byte> bytes;
  for (unsigned byte : code) bytes.push_back(static_cast<std::byte>(byte));
  return is_atomic(bytes);
}

TEST(FaultingInstruction, LockedOnesAndExchangesAreAtomic) {
  EXPECT_TRUE(is_atomic_code({0xf0, 0x48, 0x0f, 0xb1, 0x0d, 0, 0, 0, 0}));  // lock cmpxchg
  EXPECT_TRUE(is_atomic_code({0xf0, 0x83, 0x00, 0x01}));                    // lock addl
  EXPECT_TRUE(is_atomic_code({0x66, 0xf0, 0x0f, 0xc1, 0x03}));              // lock xadd, 16 bits
  EXPECT_TRUE(is_atomic_code({0x87, 0x03}));                                // xchg
  EXPECT_TRUE(is_atomic_code({0x48, 0x87, 0x03}));
  EXPECT_TRUE(is_atomic_code({0x66, 0x87, 0x03}));
  EXPECT_TRUE(is_atomic_code({0x40, 0x86, 0x3b}));
}

TEST(FaultingInstruction, OthersAreNot) {
  EXPECT_FALSE(is_atomic_code({0x48, 0x89, 0x03}));                    // mov
  EXPECT_FALSE(is_atomic_code({0xf2, 0x0f, 0x11, 0x03}));              // movsd
  EXPECT_FALSE(is_atomic_code({0xc5, 0xfd, 0x11, 0x03}));              // vmovupd
  EXPECT_FALSE(is_atomic_code({0xf3, 0x48, 0xab}));                    // rep stos
  EXPECT_FALSE(is_atomic_code({0xc7, 0x03, 0xf0, 0x87, 0x87, 0x86}));  // mov of a number
}

TEST(FaultingInstruction, WhatCannotBeToldIsTakenForAtomic) {
  EXPECT_TRUE(is_atomic({}));
  EXPECT_EQ(stands_at(-1, [](RemoteAddr) { return false; }), StandsAt::kAtomic);
}

// Another thread's fault on the same page has been answered, which woke both.
TEST(FaultingInstruction, AThreadThatRunsStandsAtNone) {
  std::atomic<pid_t> tid = 0;
  std::jthread spinning([&](const std::stop_token& stop) {
    tid = gettid();
    while (!stop.stop_requested()) continue;
  });
  while (tid == 0) sched_yield();
  EXPECT_EQ(stands_at(tid, [](RemoteAddr) { return false; }), StandsAt::kNothing);
}

}  // namespace
}  // namespace krg
