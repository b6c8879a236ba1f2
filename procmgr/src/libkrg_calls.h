// What libkrg's functions have in common: they ask this node's krgd, and fail as system calls do.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cerrno>
#include <utility>

#include "krg/runtime/control_client.h"

namespace krg {

// Sets errno; -1.
inline int failed(int number) {
  errno = number;
  return -1;
}
inline int failed(const Error& error) {
  return failed(error.errno_or(EIO));
}

inline Result<ControlClient::Answer> ask_krgd(const char* command, nlohmann::json arguments) {
  auto krgd = ControlClient::connect_to_session();
  if (!krgd) return krgd.error();
  return krgd->call(command, std::move(arguments));
}

}  // namespace krg
