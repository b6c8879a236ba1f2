// ProgressBar: how far something is, on standard error where that is a terminal; nothing elsewhere.
// Threads: one. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

namespace krg {

class ProgressBar {
 public:
  ~ProgressBar() { end(); }

  static bool is_wanted() { return isatty(STDERR_FILENO) == 1; }
  void show(const char* what, uint64_t done, uint64_t total) {
    if (!is_wanted() || total == 0) return;
    constexpr uint64_t kWidth = 30;
    const uint64_t part = std::min(done, total);
    std::string bar(part * kWidth / total, '#');
    bar.resize(kWidth, ' ');
    fmt::print(stderr, "\r{} [{}] {:3} % of {:.1f} MiB", what, bar, part * 100 / total,
               static_cast<double>(total) / (1 << 20));
    fflush(stderr);
    is_shown_ = true;
    if (part == total) end();  // before a restarted program writes
  }
  // The line is as if it had never been.
  void end() {
    if (!is_shown_) return;
    fmt::print(stderr, "\r\x1b[K");
    fflush(stderr);
    is_shown_ = false;
  }

 private:
  bool is_shown_ = false;
};

}  // namespace krg
