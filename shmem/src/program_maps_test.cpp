// SPDX-License-Identifier: GPL-2.0-or-later
#include "program_maps.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "krg/runtime/unique_fd.h"
#include "krg/shmem/page_set.h"

namespace krg {
namespace {

class ProgramMapsTest : public ::testing::Test {
 protected:
  static constexpr size_t kPages = 4, kFirst = 2;

  ProgramMapsTest() : file_(make_file()), other_(make_file()) {
    begin_ = map(kPages * kPageBytes, MAP_SHARED, file_.get(), kFirst * kPageBytes);
  }
  static UniqueFd make_file() {
    UniqueFd file(memfd_create("program_maps_test", MFD_CLOEXEC));
    EXPECT_EQ(ftruncate(file.get(), (kFirst + kPages) * kPageBytes), 0);
    return file;
  }
  static RemoteAddr map(size_t bytes, int flags, int fd, off_t offset) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, offset);
    EXPECT_NE(at, MAP_FAILED);
    return {reinterpret_cast<uint64_t>(at)};
  }
  std::chrono::nanoseconds best_of(int tries) const {
    auto best = std::chrono::nanoseconds::max();
    for (int i = 0; i < tries; ++i) {
      const auto start = std::chrono::steady_clock::now();
      EXPECT_TRUE(offset_in_mapped_file(getpid(), begin_, file_.get()));
      best = std::min<std::chrono::nanoseconds>(best, std::chrono::steady_clock::now() - start);
    }
    return best;
  }

  UniqueFd file_, other_;
  RemoteAddr begin_;
};

TEST_F(ProgramMapsTest, AnAddressIsFoundInTheFileThatIsMappedThere) {
  const RemoteAddr last = begin_ + (kPages * kPageBytes - 1);
  EXPECT_EQ(offset_in_mapped_file(getpid(), begin_, file_.get()), kFirst * kPageBytes);
  EXPECT_EQ(offset_in_mapped_file(getpid(), last, file_.get()), (kFirst + kPages) * kPageBytes - 1);
  EXPECT_EQ(offset_in_mapped_file(getpid(), begin_, other_.get()), std::nullopt);
}

TEST_F(ProgramMapsTest, WhatIsNotMappedOrOfNoFileIsNotFound) {
  const RemoteAddr anonymous = map(kPageBytes, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_EQ(offset_in_mapped_file(getpid(), anonymous, file_.get()), std::nullopt);
  munmap(reinterpret_cast<void*>(begin_.value), kPages * kPageBytes);
  EXPECT_EQ(offset_in_mapped_file(getpid(), begin_, file_.get()), std::nullopt);
  EXPECT_EQ(offset_in_mapped_file(getpid(), RemoteAddr{0}, file_.get()), std::nullopt);
}

// A program may have tens of thousands of mappings, and krgd looks at all that it removes from.
TEST_F(ProgramMapsTest, ManyOtherMappingsCostLittle) {
  utsname system{};
  int major_number = 0, minor_number = 0;
  uname(&system);
  if (std::sscanf(system.release, "%d.%d", &major_number, &minor_number) != 2 ||
      std::pair(major_number, minor_number) < std::pair(6, 11))
    return;  // the kernel writes all of them down
  const auto with_few = best_of(200);
  constexpr size_t kMappings = 20'000;
  const RemoteAddr many = map(kMappings * kPageBytes, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (size_t i = 0; i < kMappings; i += 2)
    mprotect(reinterpret_cast<void*>((many + i * kPageBytes).value), kPageBytes, PROT_READ);
  EXPECT_LT(best_of(200), 20 * with_few);
}

}  // namespace
}  // namespace krg
