// SPDX-License-Identifier: GPL-2.0-or-later
#include "process_threads.h"

#include <fmt/format.h>

#include <filesystem>

#include "text_scan.h"

namespace krg {

std::vector<pid_t> threads_of(pid_t pid) {
  std::vector<pid_t> tids;
  std::error_code error;
  std::filesystem::directory_iterator folder(fmt::format("/proc/{}/task", pid), error);
  for (; !error && folder != std::filesystem::directory_iterator(); folder.increment(error))
    if (auto tid = to_number<pid_t>(folder->path().filename().string())) tids.push_back(*tid);
  return tids;
}

}  // namespace krg
