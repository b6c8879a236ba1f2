// SPDX-License-Identifier: GPL-2.0-or-later
#include "small_files.h"

#include <fcntl.h>
#include <unistd.h>

#include "krg/runtime/unique_fd.h"

namespace krg {

Status write_small_file(const std::string& path, std::string_view text) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return errno_error(path);
  if (write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return errno_error(path);
  return {};
}

Result<std::string> read_small_file(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return errno_error(path);
  std::string text(64 * 1024, '\0');
  size_t length = 0;
  while (length < text.size()) {
    ssize_t got = read(fd.get(), text.data() + length, text.size() - length);
    if (got < 0) return errno_error(path);
    if (got == 0) break;
    length += static_cast<size_t>(got);
  }
  if (length == text.size()) return errno_error(path, EFBIG);
  text.resize(length);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace krg
