// copy_memories(): copies of one node's share of the memory that nodes share, while all that use it
// stand. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "family/family_memory.h"
#include "krg/procmgr/shared_memory.h"

namespace krg {

// Pages of one file that a node is to copy.
struct MemoryShare {
  uint32_t owner = 0, padding = 0;  // as FamilySnapshot::Pages has it
  uint64_t file = 0;
  uint64_t first = 0, count = 0;
};

using MemoryCopies = std::map<uint32_t, CopiedPages>;  // by owner

// `done` may run later. All pages but those that are zeros, their addresses being offsets in the
// file. Errors: ENOTSUP: it is too much; a page was lost with its node.
void copy_memories(SharedMemory& memory, std::vector<MemoryShare> shares,
                   std::function<void(Result<MemoryCopies>)> done);

}  // namespace krg
