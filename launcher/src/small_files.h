// Whole small files: those of /proc and /sys, state files.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <string_view>

#include "krg/runtime/result.h"

namespace krg {

// Writes `text` by one write(2) into a file that exists (a control file of /proc: no short writes,
// no truncation).
Status write_small_file(const std::string& path, std::string_view text);
// The file's text without trailing newlines. Errors: open, read; EFBIG over 64 KiB.
Result<std::string> read_small_file(const std::string& path);

}  // namespace krg
