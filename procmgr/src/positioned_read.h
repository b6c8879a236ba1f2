// read(2) of a file whose open file description, with its position, others may use at the same
// time: it also tells where the bytes stood, which read(2) does not. Threads: any; it reads the
// file. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace krg {

struct PositionedRead {
  ssize_t got = 0;     // as of read(2)
  int error = 0;       // errno, where `got` is -1
  int64_t was_at = 0;  // where they stood, in bytes
};

// Where others move the position meanwhile, and the same bytes stand at several places that it may
// have been at, `was_at` is one of these; where the file is also written there, it may be wrong.
// REQUIRES: a regular file.
PositionedRead read_at_position(int file, std::span<std::byte> to);

}  // namespace krg
