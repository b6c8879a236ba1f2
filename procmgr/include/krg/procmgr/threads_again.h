// What a restart says of the threads of a spread process (krgrun --threads, --restart).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace krg {

struct ThreadsAgain {
  uint32_t job = 0;  // in which it runs again
  // From nodes where they wait for pages more than they compute; nothing: as it was when the
  // process was started.
  std::optional<bool> come_home = {};
};

// FamilyMember::spread with that, of a process that is about to be restarted; empty: it was not
// spread. What cannot be read stays as it is: restoring it tells so.
std::string with_threads(const std::string& spread, const ThreadsAgain& threads);

}  // namespace krg
