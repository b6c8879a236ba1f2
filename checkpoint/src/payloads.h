// What payloads of checkpoint messages are made of: a text that ends with a zero byte, and rows of
// structs. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "krg/runtime/messenger.h"
#include "krg/runtime/result.h"

namespace krg {

inline std::string with_text(std::string_view text, std::string_view rest) {
  return std::string(text).append(1, '\0').append(rest);
}
// The text and what follows it.
inline std::pair<std::string, std::string_view> split_text(std::string_view payload) {
  const size_t end = std::min(payload.find('\0'), payload.size());
  return {std::string(payload.substr(0, end)), payload.substr(std::min(end + 1, payload.size()))};
}

template <class Row>
requires std::is_trivially_copyable_v<Row> std::string rows(const std::vector<Row>& all) {
  return {reinterpret_cast<const char*>(all.data()), all.size() * sizeof(Row)};
}
template <class Row>
requires std::is_trivially_copyable_v<Row> std::vector<Row> split_rows(std::string_view payload) {
  std::vector<Row> all(payload.size() / sizeof(Row));
  std::memcpy(all.data(), payload.data(), all.size() * sizeof(Row));
  return all;
}

}  // namespace krg
