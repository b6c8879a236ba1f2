// check(): the one way to state an invariant. A broken invariant is a bug of ours: it is reported
// with its place and the process aborts, in release builds too. Operating errors are Result
// (result.h), never check(). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

namespace krg {

// Prints "file:line: invariant broken: WHY" on stderr and aborts.
[[noreturn]] void check_failed(const char* why, const char* file, int line) noexcept;

// Aborts when `holds` is false. `why` says what should have been true.
inline void check(bool holds, const char* why, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) noexcept {
  if (!holds) check_failed(why, file, line);
}

}  // namespace krg
