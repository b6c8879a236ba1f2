// SPDX-License-Identifier: GPL-2.0-or-later
#include "job_control.h"

#include <fmt/core.h>
#include <signal.h>

#include <cstdio>
#include <cstring>
#include <memory>

namespace krg {

JobControl job_control_of(pid_t pid) {
  JobControl found;
  std::unique_ptr<FILE, int (*)(FILE*)> file(
      std::fopen(fmt::format("/proc/{}/stat", pid).c_str(), "re"), std::fclose);
  char line[1024];
  if (!file || std::fgets(line, sizeof line, file.get()) == nullptr) return found;
  const char* after_name = std::strrchr(line, ')');
  if (after_name != nullptr)
    std::sscanf(after_name + 1, " %*c %*d %d %d %d %d", &found.group, &found.session,
                &found.terminal, &found.foreground);
  return found;
}

bool stop_if_in_background(pid_t group, pid_t foreground) {
  if (group <= 0 || foreground <= 0 || group == foreground) return false;
  kill(-group, SIGTTIN);
  return true;
}

}  // namespace krg
