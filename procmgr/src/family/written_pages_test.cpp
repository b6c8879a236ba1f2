// What a process writes is told, whatever way the kernel has to tell it, and nothing else is.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/written_pages.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "image/testing/frozen_process_fixture.h"

namespace krg {
namespace {

using testing::FrozenProcessTest;
using testing::Shared;

constexpr size_t kPage = 4096, kPages = 64;

class WrittenPagesTest : public FrozenProcessTest, public ::testing::WithParamInterface<WrittenBy> {
 protected:
  void SetUp() override {
    FrozenProcessTest::SetUp();
    if (GetParam() == WrittenBy::kWriteProtection && !WrittenPages::has_write_protection())
      GTEST_SKIP() << "lacks dirty_pages: no write protection that lets writes through";
    if (GetParam() == WrittenBy::kSoftDirty && !WrittenPages::has_soft_dirty())
      GTEST_SKIP() << "lacks soft_dirty: no such bits";
    memory = static_cast<char*>(
        mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(memory, MAP_FAILED);
    madvise(memory, kPages * kPage, MADV_NOHUGEPAGE);
    std::memset(memory, 1, kPages * kPage / 2);
  }
  void TearDown() override {
    if (memory) munmap(memory, kPages * kPage);
    FrozenProcessTest::TearDown();
  }

  void start_steps(const std::function<void(unsigned)>& step) { pid = start_stepping(step); }
  // What was written since the last time, by numbers of pages from `from` on.
  std::vector<size_t> written(const char* from, size_t count) {
    auto frozen = freeze(pid);
    EXPECT_TRUE(frozen) << frozen.error().message();
    if (!frozen) return {};
    if (!pages) {
      auto begun = WrittenPages::begin(**frozen, GetParam());
      EXPECT_TRUE(begun) << begun.error().message();
      if (!begun) return {};
      pages = std::move(*begun);
    }
    auto ranges = pages->take();
    EXPECT_TRUE(ranges) << ranges.error().message();
    EXPECT_TRUE(pages->reset());
    std::vector<size_t> numbers;
    for (const PageRange& range : *ranges)
      for (uint64_t at = range.start.value; at < range.end().value; at += kPage) {
        const uint64_t number = (at - reinterpret_cast<uint64_t>(from)) / kPage;
        if (number < count && !range.is_clean) numbers.push_back(number);
      }
    return numbers;
  }
  std::vector<size_t> written() { return written(memory, kPages); }

  using Numbers = std::vector<size_t>;
  char* memory = nullptr;
  pid_t pid = 0;
  std::unique_ptr<WrittenPages> pages;
};

INSTANTIATE_TEST_SUITE_P(Ways, WrittenPagesTest,
                         ::testing::Values(WrittenBy::kWriteProtection, WrittenBy::kSoftDirty),
                         [](const auto& way) {
                           return way.param == WrittenBy::kSoftDirty ? "SoftDirty"
                                                                     : "WriteProtection";
                         });

TEST_P(WrittenPagesTest, WhatWasWrittenSinceIsToldOnce) {
  start_steps([this](unsigned number) {
    if (number == 1) memory[3 * kPage] = memory[7 * kPage] = 9;
    if (number == 2) memory[40 * kPage] = 9;  // had never been touched
    if (number == 3) static_cast<void>(*const_cast<volatile char*>(&memory[50 * kPage]));
    if (number == 4) memory[50 * kPage] = 9;
  });
  EXPECT_EQ(written().size(), kPages / 2) << "at first, all that there is";
  EXPECT_EQ(written(), Numbers{});
  run_step();
  EXPECT_EQ(written(), (Numbers{3, 7}));
  EXPECT_EQ(written(), Numbers{});
  run_step();
  EXPECT_EQ(written(), Numbers{40});
  run_step();
  EXPECT_EQ(written(), Numbers{}) << "it was only read";
  run_step();
  EXPECT_EQ(written(), Numbers{50});
}

TEST_P(WrittenPagesTest, TheKernelsWritesAreTold) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  start_steps([&](unsigned) {
    if (read(ends[0], memory + 5 * kPage, 10) != 10) _exit(1);
  });
  static_cast<void>(written());
  ASSERT_EQ(write(ends[1], "0123456789", 10), 10);
  run_step();
  EXPECT_EQ(written(), Numbers{5});
}

TEST_P(WrittenPagesTest, WhatIsMappedAndMovedLaterCounts) {
  auto* later =
      static_cast<char*>(mmap(nullptr, 16 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(later, MAP_FAILED);
  start_steps([&](unsigned number) {
    if (number == 1) {
      mmap(later, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
           0);
      later[kPage] = 1;
    }
    if (number == 2) mremap(memory, 4 * kPage, 4 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, later);
    if (number == 3) later[2 * kPage] = 7;
    if (number == 4) {
      madvise(later, kPage, MADV_DONTNEED);
      later[0] = 5;
    }
  });
  static_cast<void>(written());
  run_step();
  EXPECT_EQ(written(later, 16), Numbers{1});
  EXPECT_EQ(written(later, 16), Numbers{});
  run_step();
  EXPECT_EQ(written(later, 16), (Numbers{0, 1, 2, 3}));
  EXPECT_EQ(written(later, 16), Numbers{});
  run_step();
  EXPECT_EQ(written(later, 16), Numbers{2});
  run_step();
  EXPECT_EQ(written(later, 16), Numbers{0});
  munmap(later, 16 * kPage);
}

// Their copies, too; and each tells its own.
TEST_P(WrittenPagesTest, ForksChangeNothing) {
  start_steps([this](unsigned number) {
    const pid_t child = fork();
    if (child == 0) {
      memory[20 * kPage] = 3;
      _exit(0);
    }
    waitpid(child, nullptr, 0);
    memory[number * kPage] = 4;
  });
  static_cast<void>(written());
  run_step();
  EXPECT_EQ(written(), Numbers{1});
  run_step();
  EXPECT_EQ(written(), Numbers{2});
}

// A file that is mapped to be written privately: the pages that the program has made its own.
TEST_P(WrittenPagesTest, OfFilesWhatBecameTheProgramsOwn) {
  char name[] = "/tmp/written_pages_XXXXXX";
  UniqueFd file(mkstemp(name));
  ASSERT_TRUE(file);
  // Of a deleted file all pages count each time.
  const std::unique_ptr<char, void (*)(char*)> unlinked(name, [](char* path) { unlink(path); });
  ASSERT_EQ(ftruncate(file.get(), 8 * kPage), 0);
  auto* mapped = static_cast<char*>(
      mmap(nullptr, 8 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get(), 0));
  ASSERT_NE(mapped, MAP_FAILED);
  mapped[0] = mapped[kPage] = 1;
  start_steps([&](unsigned number) { mapped[number * kPage] = 2; });
  EXPECT_EQ(written(mapped, 8), (Numbers{0, 1}));
  EXPECT_EQ(written(mapped, 8), Numbers{});
  run_step();
  EXPECT_EQ(written(mapped, 8), Numbers{1});
  run_step();
  EXPECT_EQ(written(mapped, 8), Numbers{2});
  munmap(mapped, 8 * kPage);
}

TEST_P(WrittenPagesTest, TheProgramGoesOnWhenNothingIsNotedAnyMore) {
  start_steps([this](unsigned number) { memory[number * kPage] = 9; });
  static_cast<void>(written());
  run_step();
  pages.reset();
  run_step();
  EXPECT_EQ(written().size(), kPages / 2) << "begun anew";
  run_step();
  EXPECT_EQ(written(), Numbers{3});
}

// The kernel may join memory that is moved with what lies beside it, and then neither is watched
// any more (seen with Linux 6.18), while its pages still look as if they were.
TEST_P(WrittenPagesTest, WhatIsNotWatchedAnyMoreIsWatchedAnew) {
  constexpr size_t kRoom = 8 * kPages * kPage;
  auto* room =
      static_cast<char*>(mmap(nullptr, kRoom, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(room, MAP_FAILED);
  char* const there = room + kPages * kPage;
  char* const untouched = there + 4 * kPages * kPage;
  start_steps([=](unsigned number) {
    constexpr int kOwn = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    bool is_right = true;
    if (number == 1) {
      is_right = mmap(room, kRoom, PROT_NONE, kOwn, -1, 0) == room &&
                 mprotect(there, kPages * kPage, PROT_READ | PROT_WRITE) == 0 &&
                 mprotect(untouched, kPage, PROT_READ | PROT_WRITE) == 0;
    } else if (number == 2) {
      is_right = mremap(untouched, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED,
                        there + kPages * kPage) != MAP_FAILED;
    }
    if (!is_right) _exit(1);
    there[3 * kPage] = static_cast<char>(number);
  });
  run_step();
  static_cast<void>(written());
  EXPECT_TRUE(pages->reset());  // what has no pages is watched, too
  run_step();
  EXPECT_TRUE(pages->reset());
  run_step();
  EXPECT_EQ(written(there, kPages), Numbers{3});
  munmap(room, kRoom);
}

// The kernel is asked for these in another way.
TEST_P(WrittenPagesTest, OfLongMappingsTheSameIsTold) {
  constexpr size_t kLong = 20480;
  auto* there = static_cast<char*>(
      mmap(nullptr, kLong * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(there, MAP_FAILED);
  madvise(there, kLong * kPage, MADV_NOHUGEPAGE);
  for (size_t i = 0; i < kLong / 2; ++i) there[i * kPage] = 1;
  start_steps([there](unsigned number) {
    const size_t distance = number < 4 ? 97 : 1;
    for (size_t i = number; i < kLong; i += distance) there[i * kPage] = 2;
    madvise(there + 300 * number * kPage, 5 * kPage, MADV_DONTNEED);
    madvise(there + (kLong - 9) * kPage, 9 * kPage, MADV_DONTNEED);
    static_cast<void>(*const_cast<volatile char*>(there + (kLong - number) * kPage));
  });
  static_cast<void>(written());
  const auto by_page = [](const std::vector<PageRange>& ranges) {
    std::vector<std::pair<uint64_t, bool>> found;
    for (const PageRange& range : ranges)
      for (uint64_t at = 0; at < range.bytes; at += kPage)
        found.emplace_back(range.start.value + at, range.is_clean != 0);
    return found;
  };
  for (int step = 0; step < 5; ++step) {
    run_step();
    auto frozen = freeze(pid);
    ASSERT_TRUE(frozen) << frozen.error().message();
    const auto expected = content_ranges(pid, GetParam());
    const auto told = pages->take();
    ASSERT_TRUE(expected && told);
    EXPECT_TRUE(by_page(*told) == by_page(*expected)) << "step " << step;
    EXPECT_TRUE(pages->reset());
  }
  munmap(there, kLong * kPage);
}

TEST_P(WrittenPagesTest, WhatHasNoContentIsNotAmongThem) {
  start_steps([](unsigned) {});
  const auto content = [this] {
    auto ranges = pages->take();
    EXPECT_TRUE(ranges);
    size_t count = 0;
    for (const PageRange& range : *ranges) {
      const uint64_t at = range.start.value - reinterpret_cast<uint64_t>(memory);
      if (at < kPages * kPage) count += range.bytes / kPage;
    }
    return count;
  };
  for (int round = 0; round < 3; ++round) {
    static_cast<void>(written());
    EXPECT_EQ(content(), kPages / 2);
  }
}

}  // namespace
}  // namespace krg
