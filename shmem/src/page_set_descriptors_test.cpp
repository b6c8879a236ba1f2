// What happens when this process may have no more descriptors: programs fork all the same.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <set>

#include "program_maps.h"
#include "testing/page_programs.h"

namespace krg {
namespace {

// No descriptor more than there are now, while it lives.
class NoMoreDescriptors {
 public:
  NoMoreDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    rlimit now = before_;
    // All numbers below the limit are in use then.
    std::vector<UniqueFd> gaps;
    for (UniqueFd fd; (fd = UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC)));) {
      now.rlim_cur = static_cast<rlim_t>(fd.get()) + 1;
      gaps.push_back(std::move(fd));
      if (gaps.size() == kMostGaps) break;
    }
    setrlimit(RLIMIT_NOFILE, &now);
    fillers_ = std::move(gaps);
  }
  ~NoMoreDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  NoMoreDescriptors(const NoMoreDescriptors&) = delete;

 private:
  static constexpr size_t kMostGaps = 64;
  rlimit before_{};
  std::vector<UniqueFd> fillers_;
};

class PageSetDescriptorsTest : public PagePrograms {
 protected:
  void SetUp() override {
    if (!PageSet::follows_forks())
      GTEST_SKIP() << "lacks userfaultfd_kernel_faults: nor are forks told without that privilege";
    PagePrograms::SetUp();
  }

  // Forks so many children, each of which adds to the first page's word, and stays if it is to.
  Child& start_forker(unsigned children, bool they_stay) {
    Child& forker = start(0, [this, children, they_stay](Program& self) {
      uint64_t* memory = self.map();
      if (!memory) return 2;
      memory[0] = 0;
      control_->words[0] = 1;
      control_->await(1, 1);
      for (unsigned i = 0; i < children; ++i) {
        const pid_t child = fork();
        if (child < 0) return 3;
        if (child == 0) {
          prctl(PR_SET_PDEATHSIG, SIGKILL);
          alarm(30);  // where the forker has ended before that
          std::atomic_ref(memory[0]).fetch_add(1);
          while (they_stay) pause();
          _exit(0);
        }
        if (!they_stay && waitpid(child, nullptr, 0) != child) return 4;
        ++control_->words[2];
      }
      return memory[0] == children ? 0 : 5;
    });
    run_until([&] { return control_->words[0] == 1; });
    return forker;
  }
};

TEST_F(PageSetDescriptorsTest, WhatEndedChildrenHadIsGivenToOthers) {
  make(1, 4);
  start_forker(60, false);
  const NoMoreDescriptors limited;
  control_->words[1] = 1;
  expect_success();
}

TEST_F(PageSetDescriptorsTest, AForkThatFindsNoneEndsItsProgramAndNoOther) {
  make(1, 4);
  Child& forker = start_forker(60, true);
  Child& other = start(0, [this](Program& self) {
    uint64_t* memory = self.map();
    if (!memory) return 2;
    memory[512] = 7;
    control_->words[3] = 1;
    control_->await(4, 1);
    memory[1024] = 8;
    return memory[512] == 7 && memory[1024] == 8 ? 0 : 3;
  });
  run_until([&] { return control_->words[3] == 1; });
  {
    const NoMoreDescriptors limited;
    control_->words[1] = 1;
    run_until([&] { return forker.ended; });
  }
  EXPECT_TRUE(WIFSIGNALED(forker.status) && WTERMSIG(forker.status) == SIGKILL) << forker.status;
  EXPECT_GE(control_->words[2], 3u) << "some are kept for this";
  control_->words[4] = 1;
  run_until([&] { return other.ended; });
  EXPECT_EQ(other.status, 0);
}

TEST_F(PageSetDescriptorsTest, HalfOfThemAreLeftForThat) {
  make(1, 4);
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const UniqueFd next(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const rlimit few{static_cast<rlim_t>(next.get()) + 8, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &few);
  auto opened = PageSet::create(*loop_, *kddms_[0], kOtherPages, 4);
  setrlimit(RLIMIT_NOFILE, &before);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().errno_or(0), EMFILE);
}

TEST_F(PageSetDescriptorsTest, WhoMapsASetIsFound) {
  make(1, 4);
  const Child& child = start_forker(0, false);
  const auto found = processes_mapping(sets_[0]->memory());
  EXPECT_EQ(std::set<pid_t>(found.begin(), found.end()), (std::set{getpid(), child.pid}));
  control_->words[1] = 1;
  expect_success();
}

}  // namespace
}  // namespace krg
