// SPDX-License-Identifier: GPL-2.0-or-later
#include "memory_size.h"

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <string_view>

namespace krg {

Result<uint64_t> parse_memory_size(const std::string& text) {
  const Error bad =
      text_error("--mem-per-node takes a size of at least 1M, like 256M or 2G, not " + text);
  constexpr std::string_view kUnits = "KMGT";
  constexpr uint64_t kMost = uint64_t{1} << 50, kLeast = uint64_t{1} << 20;
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, failure] = std::from_chars(text.data(), end, number);
  if (failure != std::errc{}) return bad;
  size_t unit = 1;
  if (rest != end) unit = kUnits.find(*rest);
  if (unit == std::string_view::npos || (rest != end && rest + 1 != end)) return bad;
  const auto shift = static_cast<unsigned>(10 * (unit + 1));
  if (number > kMost >> shift || number << shift < kLeast) return bad;
  return number << shift;
}

void set_balance(bool balance) {
  balance ? setenv(kBalanceVariable, "1", 1) : unsetenv(kBalanceVariable);
}

Result<std::string> parse_shared_folder(const std::string& text) {
  std::error_code error;
  const auto folder = std::filesystem::canonical(text, error);
  if (error || folder == "/" || !std::filesystem::is_directory(folder, error))
    return text_error("--share-files takes a folder below /, not " + text);
  return folder.string();
}

void set_shared_files(const std::string& folder) {
  folder.empty() ? unsetenv(kShareFilesVariable) : setenv(kShareFilesVariable, folder.c_str(), 1);
}

void set_memory_per_node(uint64_t bytes) {
  if (bytes == 0) {
    unsetenv(kMemoryPerNodeVariable);
  } else {
    setenv(kMemoryPerNodeVariable, std::to_string(bytes).c_str(), 1);
  }
}

}  // namespace krg
