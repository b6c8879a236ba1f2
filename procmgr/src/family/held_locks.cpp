// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/held_locks.h"

#include <fmt/format.h>
#include <sys/file.h>

#include "text_scan.h"
#include "whole_file.h"

namespace krg {

// Lines "lock: 1: POSIX ADVISORY WRITE pid device:inode start end".
HeldLocks held_locks(pid_t pid, int fd, uint32_t file) {
  HeldLocks held;
  auto text = read_whole_file(fmt::format("/proc/{}/fdinfo/{}", pid, fd));
  if (!text) return held;
  for (std::string_view rest = *text; !rest.empty();) {
    const std::string_view line = next_line(rest);
    if (!line.starts_with("lock:")) continue;
    const auto words = split_words(line.substr(5));
    if (words.size() < 8) continue;
    const bool is_write = words[3] == "WRITE";
    FamilyLock lock{file, is_write, to_number<int64_t>(words[6]).value_or(0), 0};
    if (words[7] != "EOF")
      lock.bytes = to_number<int64_t>(words[7]).value_or(lock.start) - lock.start + 1;
    if (words[1] == "FLOCK")
      held.flock = is_write ? LOCK_EX : LOCK_SH;
    else if (words[1] == "POSIX")
      held.of_process.push_back(lock);
    else if (words[1] == "OFDLCK")
      held.of_description.push_back(lock);
    else
      held.other = words[1];
  }
  return held;
}

}  // namespace krg
