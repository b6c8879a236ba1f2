// Pages that are saved while their process runs: whatever it does to them, those that stay clean
// are as they were read.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/live_pages.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "family/written_pages.h"
#include "image/testing/frozen_process_fixture.h"

namespace krg {
namespace {

using testing::FrozenProcessTest;

constexpr size_t kPage = 4096, kPages = 64;

class LivePagesTest : public FrozenProcessTest {
 protected:
  void SetUp() override {
    FrozenProcessTest::SetUp();
    if (!WrittenPages::has_write_protection())
      GTEST_SKIP() << "lacks dirty_pages: no write protection that lets writes through";
    memory = static_cast<char*>(
        mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(memory, MAP_FAILED);
    madvise(memory, kPages * kPage, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < kPages; ++i) std::memset(memory + i * kPage, int(i + 1), kPage);
  }
  void TearDown() override {
    if (memory) munmap(memory, kPages * kPage);
    FrozenProcessTest::TearDown();
  }

  // A child that runs `step` with 1, 2, … each time the test says so; it is watched from now on.
  void start_steps(const std::function<void(unsigned)>& step,
                   std::vector<PageRange> left_out = {}) {
    pid = start_stepping(step);
    {
      auto frozen = freeze(pid);
      ASSERT_TRUE(frozen) << frozen.error().message();
      auto begun = WrittenPages::begin(**frozen, WrittenBy::kWriteProtection);
      ASSERT_TRUE(begun) << begun.error().message();
      written = std::move(*begun);
    }
    ASSERT_TRUE(written->reset());
    live.emplace(std::vector<LivePages::Member>{{pid, std::move(left_out)}});
  }
  // Of `memory`, by numbers of pages: what is saved, all at once.
  std::map<size_t, char> save() {
    std::map<size_t, char> saved;
    for (const LivePages::Pages& pages : live->next(UINT64_MAX)) {
      std::vector<std::byte> contents(pages.range.bytes);
      live->read(pages.member, {&pages.range, 1}, contents);
      for (uint64_t at = 0; at < pages.range.bytes; at += kPage)
        if (const size_t number = number_of(pages.range.start.value + at); number < kPages)
          saved[number] = static_cast<char>(contents[at]);
    }
    return saved;
  }
  // What of it has not been written since, when it stands.
  std::vector<size_t> clean() {
    auto frozen = freeze(pid);
    EXPECT_TRUE(frozen);
    auto pages = written->take();
    EXPECT_TRUE(pages);
    live->mark_unsaved(pid, *pages);
    std::vector<size_t> numbers;
    for (const PageRange& range : *pages)
      for (uint64_t at = range.start.value; at < range.end().value; at += kPage)
        if (range.is_clean && number_of(at) < kPages) numbers.push_back(number_of(at));
    return numbers;
  }
  size_t number_of(uint64_t address) const {
    return (address - reinterpret_cast<uint64_t>(memory)) / kPage;
  }
  RemoteAddr at(size_t page) const { return {reinterpret_cast<uint64_t>(memory) + page * kPage}; }
  static std::vector<size_t> all_but(std::vector<size_t> numbers) {
    std::vector<size_t> all;
    for (size_t i = 0; i < kPages; ++i)
      if (std::find(numbers.begin(), numbers.end(), i) == numbers.end()) all.push_back(i);
    return all;
  }

  char* memory = nullptr;
  pid_t pid = 0;
  std::unique_ptr<WrittenPages> written;
  std::optional<LivePages> live;
};

TEST_F(LivePagesTest, WhatStaysCleanIsAsItWasRead) {
  start_steps([this](unsigned number) {
    if (number == 1) memory[3 * kPage] = 99;  // before it is read: no use to read it
    if (number == 2) memory[7 * kPage] = 99;
  });
  run_step();
  const auto saved = save();
  EXPECT_EQ(saved.size(), kPages - 1);
  for (const auto& [page, first] : saved) EXPECT_EQ(first, char(page + 1));
  run_step();
  EXPECT_EQ(clean(), all_but({3, 7}));
  EXPECT_TRUE(save().empty()) << "each is told once";
}

TEST_F(LivePagesTest, WhatHasGoneOrMovedIsNotClean) {
  start_steps([this](unsigned number) {
    char* const page = memory + 10 * number * kPage;
    if (number == 1) madvise(page, kPage, MADV_DONTNEED);
    if (number == 2) {
      munmap(page, kPage);
      mmap(page, kPage, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      page[0] = 5;
    }
    if (number == 3) mremap(page, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, page + kPage);
    if (number == 4) mprotect(page, kPage, PROT_NONE);
    if (number == 5) munmap(page, kPage);
  });
  const auto saved = save();
  EXPECT_EQ(saved.size(), kPages);
  for (int step = 0; step < 5; ++step) run_step();
  EXPECT_EQ(clean(), all_but({10, 20, 30, 31, 50}));
}

TEST_F(LivePagesTest, WhatCannotBeReadHasNotBeenSaved) {
  start_steps([this](unsigned) { munmap(memory + 5 * kPage, 2 * kPage); });
  const auto pages = live->next(UINT64_MAX);
  run_step();
  for (const LivePages::Pages& one : pages) {
    std::vector<std::byte> contents(one.range.bytes, std::byte{1});
    live->read(one.member, {&one.range, 1}, contents);
    const uint64_t start = one.range.start.value;
    if (start > at(5).value || one.range.end().value <= at(6).value) continue;
    EXPECT_EQ(contents[at(5).value - start], std::byte{0});
    EXPECT_EQ(contents[at(7).value - start], std::byte{8}) << "what follows it is read";
  }
  std::vector<PageRange> ranges = {{.start = at(4), .bytes = 4 * kPage, .is_clean = 1},
                                   {.start = at(10), .bytes = kPage}};
  live->mark_unsaved(pid, ranges);
  const std::vector<PageRange> expected = {{.start = at(4), .bytes = kPage, .is_clean = 1},
                                           {.start = at(5), .bytes = kPage},
                                           {.start = at(6), .bytes = kPage},
                                           {.start = at(7), .bytes = kPage, .is_clean = 1},
                                           {.start = at(10), .bytes = kPage}};
  EXPECT_EQ(ranges, expected);
}

TEST_F(LivePagesTest, WhatWasNotSavedIsNotClean) {
  start_steps([](unsigned) {});
  std::vector<PageRange> ranges = {{.start = at(0), .bytes = kPages * kPage, .is_clean = 1}};
  live->mark_unsaved(pid, ranges);
  EXPECT_EQ(ranges, (std::vector<PageRange>{{.start = at(0), .bytes = kPages * kPage}}));
  ranges[0].is_clean = 1;
  live->mark_unsaved(pid + 1, ranges);
  EXPECT_EQ(ranges[0].is_clean, 0) << "of another process";
}

TEST_F(LivePagesTest, WhatIsLeftOutIsNotSaved) {
  const std::vector<PageRange> left_out = {{.start = at(8), .bytes = 3 * kPage}};
  start_steps([](unsigned) {}, left_out);
  const auto saved = save();
  EXPECT_EQ(saved.size(), kPages - 3);
  EXPECT_FALSE(saved.contains(9));
}

TEST_F(LivePagesTest, OneThatHasEndedReadsAsZeros) {
  start_steps([](unsigned) {});
  const auto pages = live->next(UINT64_MAX);
  kill(pid, SIGKILL);
  EXPECT_EQ(end_of(pid), 128 + SIGKILL);
  std::vector<std::byte> contents(pages.front().range.bytes, std::byte{1});
  live->read(0, {&pages.front().range, 1}, contents);
  EXPECT_EQ(contents.front(), std::byte{0});
  EXPECT_TRUE(live->next(UINT64_MAX).empty());
}

}  // namespace
}  // namespace krg
