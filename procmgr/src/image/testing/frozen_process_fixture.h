// FrozenProcessTest: children that share a page with the test, which freezes them.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "image/frozen_process.h"

namespace krg::testing {

// What tracee and test share.
struct Shared {
  std::atomic<uint64_t> count, others, value;
  std::atomic<bool> go_on;
};

class FrozenProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    void* memory =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    shared = new (memory) Shared{};
  }
  void TearDown() override {
    for (pid_t pid : children_) {
      kill(pid, SIGKILL);
      run_until([&] { return ended_.contains(pid); });
    }
    munmap(shared, sizeof(Shared));
  }

  pid_t start(const std::function<int()>& program) {
    const pid_t pid = fork();
    if (pid == 0) _exit(program());
    children_.push_back(pid);
    watch(pid);
    return pid;
  }
  // Runs `step` with 1, 2, … in a child, each time run_step() says so.
  pid_t start_stepping(const std::function<void(unsigned)>& step) {
    return start([this, step] {
      for (unsigned number = 1;; ++number) {
        while (shared->value < number) usleep(200);
        step(number);
        shared->count = number;
      }
      return 0;
    });
  }
  void run_step() {
    const uint64_t number = ++shared->value;
    ASSERT_TRUE(run_until([&] { return shared->count == number; }));
  }
  void watch(pid_t pid) {
    reaper->watch(pid, [this, pid](const ChildEvent& event) {
      if (event.is_end())
        ended_[pid] = event.code == CLD_EXITED ? event.status : 128 + event.status;
    });
  }
  template <class Condition>
  bool run_until(Condition reached) {
    for (int turns = 0; turns < 1000; ++turns) {
      if (reached()) return true;
      loop.run_once(std::chrono::milliseconds(5));
    }
    return false;
  }
  Result<std::shared_ptr<FrozenProcess>> freeze(pid_t pid) {
    std::optional<Result<std::shared_ptr<FrozenProcess>>> outcome;
    FrozenProcess::freeze(loop, *reaper, pid, [&](auto frozen) { outcome = std::move(frozen); });
    EXPECT_TRUE(run_until([&] { return outcome.has_value(); }));
    return outcome ? std::move(*outcome) : errno_error("no answer", ETIMEDOUT);
  }
  // 128 + signal; -1: it does not end.
  int end_of(pid_t pid) {
    return run_until([&] { return ended_.contains(pid); }) ? ended_.at(pid) : -1;
  }
  bool is_counting() {
    const uint64_t before = shared->count;
    return run_until([&] { return shared->count > before + 1000; });
  }

  EventLoop loop = std::move(*EventLoop::create());
  std::unique_ptr<ChildReaper> reaper = std::move(*ChildReaper::create(loop));
  Shared* shared = nullptr;
  std::map<pid_t, int> ended_;
  std::vector<pid_t> children_;
};

}  // namespace krg::testing
