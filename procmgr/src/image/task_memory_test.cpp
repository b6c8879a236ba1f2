// SPDX-License-Identifier: GPL-2.0-or-later
#include "task_memory.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace krg {
namespace {

constexpr size_t kPage = 4096, kPages = 16;

class TaskMemoryTest : public ::testing::Test {
 protected:
  TaskMemoryTest()
      : memory_(static_cast<char*>(mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {}
  ~TaskMemoryTest() override {
    end();
    munmap(memory_, kPages * kPage);
  }
  void end() {
    if (child_ <= 0) return;
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    child_ = 0;
  }
  // A child that stops when it has run this.
  TaskMemory open_child(const std::function<void()>& run) {
    child_ = fork();
    if (child_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      run();
      raise(SIGSTOP);
      _exit(0);
    }
    waitpid(child_, nullptr, WUNTRACED);
    auto opened = TaskMemory::open(child_);
    EXPECT_TRUE(opened) << opened.error().message();
    return std::move(*opened);
  }
  MemoryPiece piece(size_t offset, size_t bytes) const {
    return {{reinterpret_cast<uint64_t>(memory_) + offset}, bytes};
  }

  char* memory_;
  pid_t child_ = 0;
};

TEST_F(TaskMemoryTest, PiecesOneAfterTheOther) {
  auto child = open_child([this] {
    for (size_t i = 0; i < kPages * kPage; ++i) memory_[i] = static_cast<char>(i / 100);
  });
  std::vector<std::byte> bytes(3000);
  ASSERT_TRUE(child.read(std::vector{piece(5000, 1000), piece(0, 0), piece(100, 2000)}, bytes));
  EXPECT_EQ(bytes[0], std::byte{50});
  EXPECT_EQ(bytes[999], std::byte{59});
  EXPECT_EQ(bytes[1000], std::byte{1});
  EXPECT_EQ(bytes[2999], std::byte{20});
  ASSERT_TRUE(child.write(std::vector{piece(4096, 3000)}, bytes));
  std::vector<std::byte> again(3000);
  ASSERT_TRUE(child.read(std::vector{piece(4096, 3000)}, again));
  EXPECT_EQ(bytes, again);
}

TEST_F(TaskMemoryTest, MoreThanOneCallTakes) {
  auto child = open_child([this] {
    for (size_t i = 0; i < kPages * kPage; ++i) memory_[i] = static_cast<char>(i / 10);
  });
  std::vector<MemoryPiece> pieces;
  for (size_t i = 0; i < 2000; ++i) pieces.push_back(piece(i * 20, 10));
  std::vector<std::byte> bytes(20'000);
  ASSERT_TRUE(child.read(pieces, bytes));
  for (size_t i = 0; i < 2000; ++i)
    ASSERT_EQ(bytes[i * 10 + 9], static_cast<std::byte>(i * 2)) << i;
}

TEST_F(TaskMemoryTest, WhateverTheMappingAllows) {
  auto child = open_child([this] {
    memset(memory_, 'a', kPages * kPage);
    mprotect(memory_ + 2 * kPage, kPage, PROT_READ);
    mprotect(memory_ + 5 * kPage, kPage, PROT_NONE);
  });
  std::vector<std::byte> bytes(kPages * kPage);
  ASSERT_TRUE(child.read(std::vector{piece(0, kPages * kPage)}, bytes));
  EXPECT_EQ(bytes, std::vector<std::byte>(kPages * kPage, std::byte{'a'}));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i / 7);
  ASSERT_TRUE(child.write(std::vector{piece(0, kPages * kPage)}, bytes));
  std::vector<std::byte> again(kPages * kPage);
  ASSERT_TRUE(child.read(std::vector{piece(0, kPages * kPage)}, again));
  EXPECT_EQ(bytes, again);
}

TEST_F(TaskMemoryTest, NothingMappedOrNobodyThere) {
  auto child = open_child([this] { munmap(memory_ + kPage, kPage); });
  std::vector<std::byte> bytes(kPages * kPage);
  EXPECT_EQ(child.read(std::vector{piece(0, bytes.size())}, bytes).error().errno_or(0), EFAULT);
  end();
  EXPECT_EQ(child.read(std::vector{piece(0, 100)}, bytes).error().errno_or(0), ESRCH);
}

}  // namespace
}  // namespace krg
