// SPDX-License-Identifier: GPL-2.0-or-later
#include "content_ranges.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

constexpr size_t kPage = 4096, kHugePage = 2u << 20;

char* map(size_t bytes, int flags, int fd = -1, int protection = PROT_READ | PROT_WRITE) {
  void* at = mmap(nullptr, bytes, protection, flags, fd, 0);
  EXPECT_NE(at, MAP_FAILED);
  return static_cast<char*>(at);
}
char* map_anonymous(size_t bytes) {
  return map(bytes, MAP_PRIVATE | MAP_ANONYMOUS);
}

// A file of so many bytes that has a name as long as this lives.
struct NamedFile {
  explicit NamedFile(size_t bytes) : file(mkstemp(name)) {
    EXPECT_TRUE(file);
    const std::string text(bytes, 'f');
    EXPECT_EQ(write(file.get(), text.data(), bytes), static_cast<ssize_t>(bytes));
  }
  ~NamedFile() { unlink(name); }
  NamedFile(const NamedFile&) = delete;
  NamedFile& operator=(const NamedFile&) = delete;
  int get() const { return file.get(); }

  char name[32] = "/tmp/content_ranges_XXXXXX";
  UniqueFd file;
};

// The page's place among the ranges, or nullptr.
const PageRange* find(const std::vector<PageRange>& ranges, const char* page) {
  const auto address = reinterpret_cast<uint64_t>(page);
  for (const PageRange& range : ranges)
    if (range.start.value <= address && address < range.end().value) return &range;
  return nullptr;
}

std::vector<PageRange> ranges_here() {
  auto ranges = content_ranges(getpid());
  EXPECT_TRUE(ranges) << ranges.error().message();
  return ranges ? *ranges : std::vector<PageRange>{};
}

TEST(ContentRanges, OfAnonymousMemoryWhatWasWritten) {
  char* memory = map_anonymous(8 * kPage);
  memory[2 * kPage] = 1;
  memory[3 * kPage] = 0;  // written, if with zeros
  memory[5 * kPage] = 1;
  const volatile char read_only = memory[6 * kPage];
  EXPECT_EQ(read_only, 0);
  const auto ranges = ranges_here();
  const PageRange* pair = find(ranges, memory + 2 * kPage);
  ASSERT_NE(pair, nullptr);
  EXPECT_EQ(pair->start.value, reinterpret_cast<uint64_t>(memory + 2 * kPage));
  EXPECT_EQ(pair->bytes, 2 * kPage);
  EXPECT_FALSE(pair->comes_first);
  ASSERT_NE(find(ranges, memory + 5 * kPage), nullptr);
  EXPECT_EQ(find(ranges, memory + 5 * kPage)->bytes, kPage);
  for (size_t untouched : {0, 1, 4, 7})
    EXPECT_EQ(find(ranges, memory + untouched * kPage), nullptr) << untouched;
  EXPECT_EQ(find(ranges, memory + 6 * kPage), nullptr) << "a page of zeros that was only read";
  munmap(memory, 8 * kPage);
}

TEST(ContentRanges, OfPrivateFileMappingsWhatWasWritten) {
  NamedFile file(4 * kPage);
  char* memory = map(4 * kPage, MAP_PRIVATE, file.get());
  const volatile char clean = memory[0];
  EXPECT_EQ(clean, 'f');
  memory[2 * kPage] = 'w';
  const auto ranges = ranges_here();
  EXPECT_EQ(find(ranges, memory), nullptr);
  const PageRange* written = find(ranges, memory + 2 * kPage);
  ASSERT_NE(written, nullptr);
  EXPECT_EQ(written->bytes, kPage);
  EXPECT_TRUE(written->comes_first);
  munmap(memory, 4 * kPage);
}

TEST(ContentRanges, AllOfADeletedFile) {
  NamedFile file(3 * kPage - 100);
  char* memory = map(6 * kPage, MAP_PRIVATE, file.get());
  unlink(file.name);
  const auto ranges = ranges_here();
  const PageRange* all = find(ranges, memory);
  ASSERT_NE(all, nullptr);
  EXPECT_EQ(all->start.value, reinterpret_cast<uint64_t>(memory));
  EXPECT_EQ(all->bytes, 3 * kPage) << "what lies behind the file's end cannot be read";
  EXPECT_FALSE(all->comes_first);
  munmap(memory, 6 * kPage);
}

TEST(ContentRanges, NothingOfSharedMappings) {
  NamedFile file(kPage);
  char* of_file = map(kPage, MAP_SHARED, file.get());
  char* anonymous = map(kPage, MAP_SHARED | MAP_ANONYMOUS);
  *of_file = *anonymous = 's';
  const auto ranges = ranges_here();
  EXPECT_EQ(find(ranges, of_file), nullptr);
  EXPECT_EQ(find(ranges, anonymous), nullptr);
  munmap(of_file, kPage);
  munmap(anonymous, kPage);
}

TEST(ContentRanges, ProtectionDoesNotCount) {
  char* memory = map_anonymous(2 * kPage);
  memory[0] = 1;
  ASSERT_EQ(mprotect(memory, 2 * kPage, PROT_NONE), 0);
  const auto ranges = ranges_here();
  ASSERT_NE(find(ranges, memory), nullptr);
  EXPECT_EQ(find(ranges, memory)->bytes, kPage);
  munmap(memory, 2 * kPage);
}

TEST(ContentRanges, NeverAcrossMappings) {
  char* memory = map_anonymous(2 * kPage);
  memset(memory, 1, 2 * kPage);
  ASSERT_EQ(mprotect(memory + kPage, kPage, PROT_READ), 0);
  const auto ranges = ranges_here();
  ASSERT_NE(find(ranges, memory + kPage), nullptr);
  EXPECT_EQ(find(ranges, memory + kPage)->start.value, reinterpret_cast<uint64_t>(memory + kPage));
  munmap(memory, 2 * kPage);
}

TEST(ContentRanges, GuardsHaveNone) {
  constexpr int kInstallGuard = 102;  // MADV_GUARD_INSTALL, Linux 6.13
  char* memory = map_anonymous(4 * kPage);
  memset(memory, 1, 4 * kPage);
  if (madvise(memory + kPage, kPage, kInstallGuard) == 0) {
    const auto ranges = ranges_here();
    EXPECT_NE(find(ranges, memory), nullptr);
    EXPECT_EQ(find(ranges, memory + kPage), nullptr);
    EXPECT_NE(find(ranges, memory + 2 * kPage), nullptr);
  }
  munmap(memory, 4 * kPage);
}

TEST(ContentRanges, ManyPiecesAreAllFound) {
  constexpr size_t kPieces = 3000;
  char* memory = map_anonymous(2 * kPieces * kPage);
  for (size_t i = 0; i < kPieces; ++i) memory[2 * i * kPage] = 1;
  const auto ranges = ranges_here();
  const auto first = reinterpret_cast<uint64_t>(memory);
  const auto here = std::count_if(ranges.begin(), ranges.end(), [&](const PageRange& range) {
    return range.start.value >= first && range.end().value <= first + 2 * kPieces * kPage;
  });
  EXPECT_EQ(here, kPieces);
  EXPECT_TRUE(std::is_sorted(ranges.begin(), ranges.end(),
                             [](const auto& a, const auto& b) { return a.start < b.start; }));
  munmap(memory, 2 * kPieces * kPage);
}

TEST(ContentRanges, HugePagesAreTold) {
  char* memory = map_anonymous(2 * kHugePage);
  auto* huge = reinterpret_cast<char*>((reinterpret_cast<uint64_t>(memory) + kHugePage - 1) /
                                       kHugePage * kHugePage);
  ASSERT_EQ(madvise(memory, 2 * kHugePage, MADV_HUGEPAGE), 0);
  *huge = 1;
  const auto ranges = ranges_here();
  const PageRange* range = find(ranges, huge);
  ASSERT_NE(range, nullptr);
  // The kernel may have had no huge page at hand.
  if (range->bytes >= kHugePage) {
    EXPECT_TRUE(range->is_huge);
  }
  munmap(memory, 2 * kHugePage);
}

TEST(ContentRanges, PagemapAloneSaysTheSame) {
  NamedFile file(4 * kPage);
  char* of_file = map(4 * kPage, MAP_PRIVATE, file.get());
  char* memory = map_anonymous(8 * kPage);
  memory[kPage] = memory[2 * kPage] = memory[5 * kPage] = 1;
  of_file[kPage] = 1;
  auto ranges = content_ranges_by_pagemap(getpid());
  ASSERT_TRUE(ranges);
  EXPECT_EQ(find(*ranges, memory), nullptr);
  ASSERT_NE(find(*ranges, memory + kPage), nullptr);
  EXPECT_EQ(find(*ranges, memory + kPage)->bytes, 2 * kPage);
  EXPECT_NE(find(*ranges, memory + 5 * kPage), nullptr);
  EXPECT_EQ(find(*ranges, of_file), nullptr);
  ASSERT_NE(find(*ranges, of_file + kPage), nullptr);
  EXPECT_TRUE(find(*ranges, of_file + kPage)->comes_first);
  munmap(memory, 8 * kPage);
  munmap(of_file, 4 * kPage);
}

TEST(ContentRanges, ArgumentsAndEnvironmentComeFirst) {
  char on_stack[4 * kPage];  // its start is on another page than the arguments, however they lie
  memset(on_stack, 1, sizeof on_stack);
  const auto ranges = ranges_here();
  const PageRange* arguments = find(ranges, program_invocation_name);
  ASSERT_NE(arguments, nullptr);
  EXPECT_TRUE(arguments->comes_first);
  ASSERT_NE(environ[0], nullptr);
  const PageRange* environment = find(ranges, environ[0]);
  ASSERT_NE(environment, nullptr);
  EXPECT_TRUE(environment->comes_first);
  ASSERT_NE(find(ranges, on_stack), nullptr);
  EXPECT_LT(find(ranges, on_stack)->start, environment->start);
}

TEST(ContentRanges, OfAnotherProcess) {
  char* memory = map_anonymous(4 * kPage);
  memory[kPage] = 1;
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    memory[3 * kPage] = 1;
    raise(SIGSTOP);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  auto ranges = content_ranges(child);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  ASSERT_TRUE(ranges);
  EXPECT_NE(find(*ranges, memory + kPage), nullptr);
  EXPECT_NE(find(*ranges, memory + 3 * kPage), nullptr);
  munmap(memory, 4 * kPage);
  EXPECT_EQ(content_ranges(child).error().errno_or(0), ESRCH);
}

}  // namespace
}  // namespace krg
