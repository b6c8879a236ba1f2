// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/call_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace krg {
namespace {

constexpr RemoteAddr kThere{0x10000};

class CallMemoryTest : public testing::Test {
 protected:
  alignas(64) std::array<char, 256> here_{};
  CallMemory memory_{here_, kThere};
};

TEST_F(CallMemoryTest, IsTheSameHereAndThere) {
  auto first = memory_.lend(10), second = memory_.lend(70);
  ASSERT_TRUE(first && second);
  for (const auto* loan : {&*first, &*second})
    EXPECT_EQ(loan->bytes().data() - here_.data(),
              static_cast<int64_t>(loan->address().value - kThere.value));
  EXPECT_EQ(first->bytes().size(), 10u);
  EXPECT_GE(second->bytes().data(), first->bytes().data() + first->bytes().size());
}

TEST_F(CallMemoryTest, LendsWhatHasComeBack) {
  std::vector<CallMemory::Loan> all;
  while (auto loan = memory_.lend(30)) all.push_back(std::move(*loan));
  EXPECT_EQ(all.size(), 4u);
  const RemoteAddr second = all[1].address();
  all.erase(all.begin() + 1);
  EXPECT_FALSE(memory_.lend(64 + 1)) << "no gap is as large";
  auto again = memory_.lend(30);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->address(), second);
  EXPECT_FALSE(memory_.lend(1));
  all.clear();
  again.reset();
  EXPECT_TRUE(memory_.lend(250));
}

TEST_F(CallMemoryTest, HasNoMoreThanThereIs) {
  EXPECT_FALSE(memory_.lend(257));
  EXPECT_FALSE(CallMemory().lend(0));
}

}  // namespace
}  // namespace krg
