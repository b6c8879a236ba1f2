// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/format.h>

#include <cstdio>
#include <cstring>

#include "krg/procmgr/process_table.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

uint64_t process_start_time(pid_t pid) {
  UniqueFd stat(open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!stat) return 0;
  char text[1024];
  ssize_t length = read(stat.get(), text, sizeof text - 1);
  if (length <= 0) return 0;
  text[length] = '\0';
  // The command name (field 2) may hold anything, so fields are counted from the last parenthesis.
  const char* rest = strrchr(text, ')');
  unsigned long long start = 0;
  if (!rest ||
      sscanf(rest + 2,
             "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
             &start) != 1)
    return 0;
  return start;
}

}  // namespace krg
