// What nodes share of a family's memory (SharedMemory::save()), in a capture over them.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <vector>

#include "family/family_piece.h"
#include "family/memory_copies.h"
#include "krg/procmgr/process_family.h"
#include "krg/procmgr/shared_memory.h"

namespace krg {

// Errors: ENOTSUP: a process outside of the family has it mapped, too.
Result<SharedMemory::Whose> whose_memory(const ProcessFamily& family,
                                         const std::map<NodeId, FamilyPiece>& pieces,
                                         const std::map<NodeId, FamilyDescription>& described);
// Open files lead to them. Errors: ESTALE: to one that is not there.
Status add_memories(std::vector<SavedMemory> memories, ProcessFamily& family);
// What each node with members copies: as much as the others.
std::map<NodeId, std::vector<MemoryShare>> shares_of_memories(const ProcessFamily& family);

}  // namespace krg
