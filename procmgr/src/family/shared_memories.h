// What nodes share of a family's memory (SharedMemory::save()), in a capture over them.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <string>
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
// The files among them that have pages.
std::vector<MemoryRow> rows_of_memories(const ProcessFamily& family);
// What was written of each, on any node, of what the nodes answered (FamilySettleMemory): payload
// of FamilyCopyMemory. Errors: EBADMSG.
Result<std::string> written_on_all(size_t files, const std::vector<std::string>& answers);

}  // namespace krg
