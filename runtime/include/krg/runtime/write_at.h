// write_at(): all of some bytes to a place in a file. Any thread. Source: pwrite(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "krg/runtime/result.h"

namespace krg {

// Errors: of pwrite(2), told of `what`; EIO when nothing more can be written.
inline Status write_at(int fd, uint64_t offset, std::span<const std::byte> bytes,
                       const std::string& what) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return errno_error(what, written < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return {};
}

}  // namespace krg
