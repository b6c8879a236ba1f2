// consolidate(): a version some of whose pages are in older ones gets all of them into its own
// part, so that it needs no other any more. Its own pages stay where they are in it, for newer
// versions that need them.
//
// Threads: a worker, and threads of its own meanwhile. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "krg/runtime/result.h"

namespace krg {

struct ConsolidateOptions {
  bool compress = false;
  std::chrono::milliseconds patience{0};  // for another writer in the folder
  // Asked for each block: true ends it, and leaves all as it was.
  std::function<bool()> is_stopped = [] { return false; };
  // Told of each step before it is taken: tests end the process there.
  std::function<void(const std::string& step)> on_step = [](const std::string&) {};
};

// `version`: 0: the newest. Errors: EBUSY; ECANCELED; those of reading and writing: what was there
// before stays.
Status consolidate(const std::string& folder, uint32_t version, const ConsolidateOptions& options);

}  // namespace krg
