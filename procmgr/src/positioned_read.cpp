// SPDX-License-Identifier: GPL-2.0-or-later
#include "positioned_read.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <string_view>

namespace krg {
namespace {

// So far from each other the places may be between which the bytes are looked for.
constexpr int64_t kMostBetween = 16 << 20;

// The first place in the file from `first` to `last`, both included, where the bytes are.
std::optional<int64_t> find(int file, int64_t first, int64_t last, std::string_view bytes) {
  std::string there(static_cast<size_t>(last - first) + bytes.size(), '\0');
  const ssize_t got = pread(file, there.data(), there.size(), first);
  there.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  const size_t found = there.find(bytes);
  if (found == std::string::npos) return std::nullopt;
  return first + static_cast<int64_t>(found);
}

}  // namespace

PositionedRead read_at_position(int file, std::span<std::byte> to) {
  const int64_t before = lseek(file, 0, SEEK_CUR);
  const ssize_t got = ::read(file, to.data(), to.size());
  if (got < 0) return {got, errno, before};
  const int64_t ended = lseek(file, 0, SEEK_CUR) - got;
  if (got == 0 || ended == before) return {got, 0, ended};
  // Somebody has moved it before the read, after it, or both.
  const std::string_view bytes(reinterpret_cast<const char*>(to.data()), static_cast<size_t>(got));
  for (const int64_t place : {ended, before})
    if (find(file, place, place, bytes)) return {got, 0, place};
  const bool is_near = before < ended && ended - before <= kMostBetween;
  const auto found = is_near ? find(file, before, ended, bytes) : std::nullopt;
  return {got, 0, found.value_or(ended)};
}

}  // namespace krg
