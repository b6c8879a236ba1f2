// memory_of_sets(): programs' memory that is pages of page sets, for the broker: read and written
// wherever the pages are, since krgd would wait for itself if it touched them.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "caller_memory.h"
#include "krg/shmem/page_set.h"

namespace krg {

struct PlaceInSet {
  std::shared_ptr<void> keeper;  // keeps the set open
  PageSet* pages;
  uint64_t offset;
};

// `find`: what the process has mapped there, if it is a page set's. Threads: the loop's thread.
using FindInSet = std::function<std::optional<PlaceInSet>(pid_t pid, RemoteAddr at)>;
// `any`: whether there are such processes at all.
MemorySource memory_of_sets(std::function<bool()> any, FindInSet find);

}  // namespace krg
