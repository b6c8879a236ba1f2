// number_of(): a word of a command line that is a number, such as a pid or a node.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>

namespace krg {

// Nothing for anything but a whole number from 0 to INT32_MAX.
inline std::optional<long> number_of(const std::string& text) {
  long number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, failure] = std::from_chars(text.data(), end, number);
  if (failure != std::errc() || rest != end || number < 0 || number > INT32_MAX)
    return std::nullopt;
  return number;
}

}  // namespace krg
