// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/thread_state.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include "spread/spread_image.h"

namespace krg {
namespace {

user_regs_struct in_call(int64_t result) {
  user_regs_struct registers{};
  registers.rip = 0x1002;
  registers.orig_rax = SYS_futex;
  registers.rax = static_cast<uint64_t>(result);
  return registers;
}

TEST(ThreadState, TravelsWhole) {
  ThreadState state;
  state.registers = in_call(7);
  state.extended_state = std::string("xmm\0ymm", 7);
  auto parsed = ThreadState::parse(state.serialize());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->registers.rip, 0x1002u);
  EXPECT_EQ(parsed->extended_state, state.extended_state);
  EXPECT_FALSE(ThreadState::parse(state.serialize() + "x"));
  EXPECT_FALSE(ThreadState::parse(""));
}

TEST(ThreadState, ACallIsMadeAgainAtItsInstruction) {
  const user_regs_struct again = before_the_call(in_call(-512));
  EXPECT_EQ(again.rip, 0x1000u);
  EXPECT_EQ(again.rax, static_cast<uint64_t>(SYS_futex));
  EXPECT_EQ(again.orig_rax, ~0ULL) << "the kernel is not to begin anything anew";
}

TEST(ThreadState, InterruptedCallsAreTold) {
  for (int64_t result : {-512, -513, -514}) EXPECT_TRUE(is_to_be_restarted(in_call(result)));
  for (int64_t result : {-516, -4, 0, 1}) EXPECT_FALSE(is_to_be_restarted(in_call(result)));
  EXPECT_TRUE(is_remembered_by_kernel(in_call(-516)));
  user_regs_struct computing = in_call(-512);
  computing.orig_rax = ~0ULL;
  EXPECT_FALSE(is_to_be_restarted(computing));
}

TEST(CapturedThreads, AreTheSameAfterATravel) {
  CapturedThreads all;
  all[7].state.registers.rip = 4242;
  all[7].state.extended_state = "wide";
  all[7].is_at_rest = true;
  all[9].is_in_call = true;
  const std::string bytes = all.serialize();
  auto parsed = CapturedThreads::parse(bytes);
  ASSERT_TRUE(parsed);
  ASSERT_EQ(parsed->size(), 2u);
  EXPECT_EQ(parsed->at(7).state.registers.rip, 4242u);
  EXPECT_EQ(parsed->at(7).state.extended_state, "wide");
  EXPECT_TRUE(parsed->at(7).is_at_rest);
  EXPECT_FALSE(parsed->at(7).is_in_call);
  EXPECT_TRUE(parsed->at(9).is_in_call);
  EXPECT_FALSE(CapturedThreads::parse(bytes.substr(0, bytes.size() - 1)));
}

TEST(SpreadImage, WhatAThreadMayWriteIsSpread) {
  ImageMapping mapping;
  mapping.bytes = 4096;
  EXPECT_TRUE(is_to_be_spread(mapping)) << "anonymous, without access so far: a thread's stack";
  mapping.kind = ImageMapping::Kind::kFile;
  mapping.protection = 1;
  EXPECT_FALSE(is_to_be_spread(mapping));
  mapping.protection = 3;
  EXPECT_TRUE(is_to_be_spread(mapping));
  mapping.advice = ImageMapping::kShared;
  EXPECT_FALSE(is_to_be_spread(mapping));
  mapping = {};
  mapping.bytes = kMostSpreadBytes + 4096;
  EXPECT_FALSE(is_to_be_spread(mapping));
  mapping = {};
  mapping.kind = ImageMapping::Kind::kKernel;
  EXPECT_FALSE(is_to_be_spread(mapping));
}

// Of what is shared only what nobody may write goes to the replicas; files that nothing maps any
// more do not.
TEST(SpreadImage, LeavesSharedMemoryAtHome) {
  ProcessImage image;
  image.files = {{"/program", 1, 1},
                 {"krg-shared:1:2", 4096, 0},
                 {"/written", 4096, ImageFile::kMayChange},
                 {"/only-read", 4096, 5}};
  for (uint32_t file = 0; file < 4; ++file) {
    ImageMapping& mapping = image.mappings.emplace_back();
    mapping.kind = ImageMapping::Kind::kFile;
    mapping.file = file;
    mapping.advice = file == 0 ? 0 : uint32_t{ImageMapping::kShared};
  }
  image.mappings.emplace_back();  // anonymous
  leave_shared_at_home(image);
  ASSERT_EQ(image.files.size(), 2U);
  EXPECT_EQ(image.files[1].path, "/only-read");
  ASSERT_EQ(image.mappings.size(), 3U);
  EXPECT_EQ(image.mappings[0].file, 0U);
  EXPECT_EQ(image.mappings[1].file, 1U);
  EXPECT_EQ(image.mappings[2].kind, ImageMapping::Kind::kAnonymous);
}

}  // namespace
}  // namespace krg
