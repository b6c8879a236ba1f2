// AllocationBook: what processes with KRG_STATS tell of their memory before they are spread.
//
// Threads: the loop's thread. Owned by Spreading.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <vector>

#include "spread/memory_names.h"

namespace krg {

class AllocationBook {
 public:
  // Of a process that lives. The oldest are forgotten where there are very many.
  void add(pid_t pid, MemoryNames::Allocation told);
  // In their order, and forgets them.
  std::vector<MemoryNames::Allocation> take(pid_t pid);

 private:
  struct Told {
    uint64_t started = 0;  // when the process was, by which it is told from a later one
    std::vector<MemoryNames::Allocation> all;
  };
  std::map<pid_t, Told> told_;
};

}  // namespace krg
