// read_whole_file(): the text of a file of procfs, whatever its size: one read(2) gives a part.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fcntl.h>

#include <string>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// What comes after `limit` bytes may be left out. Errors: of open(2), read(2).
inline Result<std::string> read_whole_file(const std::string& path, size_t limit = 64u << 20) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno_error(path);
  std::string text;
  char piece[16384];
  while (text.size() < limit) {
    const ssize_t got = read(file.get(), piece, sizeof piece);
    if (got < 0) return errno_error(path);
    if (got == 0) break;
    text.append(piece, static_cast<size_t>(got));
  }
  return text;
}

}  // namespace krg
