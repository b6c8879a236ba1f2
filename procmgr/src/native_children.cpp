// SPDX-License-Identifier: GPL-2.0-or-later
#include "native_children.h"

#include <dirent.h>
#include <fmt/core.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>

#include "process_status.h"

namespace krg {

std::vector<pid_t> native_children(pid_t pid) {
  std::vector<pid_t> children;
  const std::string tasks = fmt::format("/proc/{}/task", pid);
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(tasks.c_str()), closedir);
  if (!directory) return children;
  while (const dirent* entry = readdir(directory.get())) {
    if (entry->d_name[0] == '.') continue;
    std::ifstream file(fmt::format("{}/{}/children", tasks, entry->d_name));
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
