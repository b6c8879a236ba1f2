// environment_variable(): of a process, as it was when its program began. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fmt/format.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "whole_file.h"

namespace krg {

// None where it is not set, or not to be read.
inline std::optional<std::string> environment_variable(pid_t pid, std::string_view name) {
  auto environment = read_whole_file(fmt::format("/proc/{}/environ", pid));
  if (!environment) return std::nullopt;
  const std::string all = '\0' + *environment;
  const std::string wanted = fmt::format("{}{}=", '\0', name);
  const size_t found = all.find(wanted);
  if (found == std::string::npos) return std::nullopt;
  return std::string(all.c_str() + found + wanted.size());
}

}  // namespace krg
