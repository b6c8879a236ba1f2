// SPDX-License-Identifier: GPL-2.0-or-later
#include "native_children.h"

#include <fmt/core.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "process_status.h"
#include "process_threads.h"

namespace krg {

std::vector<pid_t> native_children(pid_t pid) {
  std::vector<pid_t> children;
  for (const pid_t tid : threads_of(pid)) {
    std::ifstream file(fmt::format("/proc/{}/task/{}/children", pid, tid));
    for (pid_t child; file >> child;) children.push_back(child);
  }
  return children;
}

bool has_child(pid_t pid) {
  return !native_children(pid).empty();
}

bool has_ended_child(pid_t pid, ChildChoice choice) {
  const pid_t group = choice.id_type == P_PGID && choice.id == 0 ? getpgid(pid) : choice.id;
  for (pid_t child : native_children(pid)) {
    auto stat = read_process_stat(child);
    if (!stat || !stat->is_zombie()) continue;
    if (choice.id_type == P_ALL || (choice.id_type == P_PID && choice.id == child) ||
        (choice.id_type == P_PGID && stat->group == group))
      return true;
  }
  return false;
}

}  // namespace krg
