// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/page_copier.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

namespace krg {
namespace {

constexpr uint64_t kPage = 4096;

// Every second page of a child that stands; each begins with its number.
class PageCopierTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  PageCopierTest()
      : bytes_(GetParam() * 2 * kPage),
        memory_(static_cast<char*>(
            mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    for (uint64_t i = 0; i < GetParam(); ++i) {
      ranges_.push_back(range(i));
      std::memcpy(memory_ + i * 2 * kPage, &i, sizeof i);
    }
    child_ = fork();
    if (child_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      raise(SIGSTOP);
      _exit(0);
    }
    waitpid(child_, nullptr, WUNTRACED);
  }
  ~PageCopierTest() override {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    munmap(memory_, bytes_);
  }
  PageRange range(uint64_t number) const {
    return {.start = {reinterpret_cast<uint64_t>(memory_) + number * 2 * kPage}, .bytes = kPage};
  }

  const uint64_t bytes_;
  char* const memory_;
  pid_t child_ = 0;
  std::vector<PageRange> ranges_;
};

TEST_P(PageCopierTest, EachRangeIsFoundWithItsContent) {
  for (int round = 0; round < 20; ++round) {
    auto copied = copy_pages(child_, ranges_, Help::kAlways);
    ASSERT_TRUE(copied) << copied.error().message();
    // What it is when it has been moved, too; the helper may be at work on the old one's.
    CopiedPages kept = std::move(*copied);
    for (uint64_t i = 0; i < GetParam(); ++i) {
      uint64_t number = 0;
      const std::byte* page = kept.find(range(i).start);
      ASSERT_NE(page, nullptr) << i;
      std::memcpy(&number, page, sizeof number);
      ASSERT_EQ(number, i);
      ASSERT_EQ(kept.find(range(i).end()), nullptr) << i;
    }
    kept = {};
  }
}

TEST_P(PageCopierTest, WhatIsNotMappedIsAnError) {
  for (const bool at_the_end : {false, true}) {
    auto ranges = ranges_;
    const PageRange nothing{.start = {at_the_end ? uint64_t{1} << 46 : kPage}, .bytes = kPage};
    ranges.insert(at_the_end ? ranges.end() : ranges.begin(), nothing);
    const auto copied = copy_pages(child_, ranges, Help::kAlways);
    ASSERT_FALSE(copied);
    EXPECT_EQ(copied.error().errno_or(0), EFAULT);
  }
}

TEST_P(PageCopierTest, WhoHasEndedIsAnError) {
  kill(child_, SIGKILL);
  waitpid(child_, nullptr, 0);
  const auto copied = copy_pages(child_, ranges_, Help::kAlways);
  ASSERT_FALSE(copied);
  EXPECT_EQ(copied.error().errno_or(0), ESRCH);
}

TEST(PageBuffer, WhatWasLetGoIsUsedAgainWhereItIsLongEnough) {
  constexpr uint64_t kLong = 40u << 20;
  const std::byte* let_go = nullptr;
  {
    auto first = PageBuffer::make(kLong);
    ASSERT_TRUE(first);
    let_go = first->get();
  }
  const auto longer = PageBuffer::make_unclear(2 * kLong), again = PageBuffer::make_unclear(kLong),
             other = PageBuffer::make_unclear(kLong);
  ASSERT_TRUE(longer && again && other);
  EXPECT_NE(longer->get(), let_go);
  EXPECT_EQ(again->get(), let_go);
  EXPECT_NE(other->get(), let_go);
  std::memset(other->get(), 1, kLong);
}

INSTANTIATE_TEST_SUITE_P(Pages, PageCopierTest, ::testing::Values(1, 64, 100, 513, 3000));

}  // namespace
}  // namespace krg
