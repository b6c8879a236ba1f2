// SPDX-License-Identifier: GPL-2.0-or-later
#include "positioned_read.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

// A file of numbers, each of which says where it is. (The kernel takes no lock for a memfd's
// position: two reads at a time may leave it anywhere.)
UniqueFd file_of_numbers(size_t count) {
  UniqueFd file(open(::testing::TempDir().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  std::vector<int64_t> numbers(count);
  for (size_t i = 0; i < count; ++i) numbers[i] = static_cast<int64_t>(i * sizeof numbers[0]);
  const auto bytes = std::as_bytes(std::span(numbers));
  EXPECT_EQ(write(file.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(lseek(file.get(), 0, SEEK_SET), 0);
  return file;
}

TEST(PositionedRead, TellsWhereTheBytesStood) {
  const UniqueFd file = file_of_numbers(4);
  std::array<int64_t, 3> read{};
  const auto to = std::as_writable_bytes(std::span(read));
  PositionedRead done = read_at_position(file.get(), to);
  EXPECT_EQ(done.got, 24);
  EXPECT_EQ(done.was_at, 0);
  EXPECT_EQ(read[2], 16);
  done = read_at_position(file.get(), to);
  EXPECT_EQ(done.got, 8);
  EXPECT_EQ(done.was_at, 24);
  done = read_at_position(file.get(), to);
  EXPECT_EQ(done.got, 0);
  EXPECT_EQ(done.was_at, 32);
}

TEST(PositionedRead, TellsWhatIsWrong) {
  std::array<std::byte, 8> to{};
  const PositionedRead done = read_at_position(-1, to);
  EXPECT_EQ(done.got, -1);
  EXPECT_EQ(done.error, EBADF);
}

// Both read at the same position, as processes that share a description do.
TEST(PositionedRead, TellsItThoughOthersReadAtTheSameTime) {
  constexpr size_t kNumbers = 1 << 19;
  const UniqueFd file = file_of_numbers(kNumbers);
  std::atomic<bool> is_over = false;
  std::jthread other([&] {
    std::array<int64_t, 2> read{};
    while (!is_over && ::read(file.get(), read.data(), sizeof read) > 0) {
    }
  });
  for (;;) {
    std::array<int64_t, 3> read{};
    const PositionedRead done =
        read_at_position(file.get(), std::as_writable_bytes(std::span(read)));
    if (done.got < static_cast<ssize_t>(sizeof read)) break;
    ASSERT_EQ(done.was_at, read[0]);
  }
  is_over = true;
}

}  // namespace
}  // namespace krg
