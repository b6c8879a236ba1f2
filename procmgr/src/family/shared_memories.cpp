// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/shared_memories.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "krg/shmem/page_set.h"
#include "packed_bytes.h"
#include "process_spec.h"

namespace krg {
namespace {

bool is_memory(const FamilyFile& file) {
  return file.kind == FamilyFile::Kind::kMemory;
}

std::set<uint64_t> held_files(const std::map<NodeId, FamilyPiece>& pieces,
                              const std::map<NodeId, FamilyDescription>& described) {
  std::set<uint64_t> held;
  for (const auto& [node, piece] : pieces)
    held.insert(piece.memories.begin(), piece.memories.end());
  for (const auto& [node, description] : described)
    for (const FamilyFile& file : description.files)
      if (is_memory(file)) held.insert(file.bytes);
  return held;
}

}  // namespace

Result<SharedMemory::Whose> whose_memory(const ProcessFamily& family,
                                         const std::map<NodeId, FamilyPiece>& pieces,
                                         const std::map<NodeId, FamilyDescription>& described) {
  SharedMemory::Whose whose;
  for (const FamilyMember& member : family.members) whose.members.push_back(member.pid);
  const auto held = held_files(pieces, described);
  whose.held.assign(held.begin(), held.end());
  for (const auto& [node, description] : described) {
    whose.others.insert(whose.others.end(), description.others.begin(), description.others.end());
    for (const OthersMemory& one : description.others_memories)
      if (held.contains(one.file))
        return cannot_move(fmt::format(
            "memory that it shares with process {}, which is outside of the family", one.pid));
  }
  return whose;
}

Status add_memories(std::vector<SavedMemory> memories, ProcessFamily& family) {
  for (FamilyFile& file : family.files) {
    if (!is_memory(file)) continue;
    const auto known = std::find_if(memories.begin(), memories.end(), [&](const SavedMemory& one) {
      return one.id == file.bytes && one.is_file();
    });
    if (known == memories.end()) return errno_error("a file of /dev/shm", ESTALE);
    file.pipe = static_cast<uint32_t>(known - memories.begin());
    file.bytes = known->bytes;
  }
  family.memories = std::move(memories);
  return {};
}

std::vector<MemoryRow> rows_of_memories(const ProcessFamily& family) {
  std::vector<MemoryRow> rows;
  for (size_t i = 0; i < family.memories.size(); ++i) {
    const SavedMemory& memory = family.memories[i];
    if (const uint64_t pages = memory.covered / kPageBytes; memory.is_file() && pages > 0)
      rows.push_back({family.owner_of_memory(i), 0, memory.id, pages});
  }
  return rows;
}

Result<std::string> written_on_all(size_t files, const std::vector<std::string>& answers) {
  std::vector<PackedReader> in(answers.begin(), answers.end());
  PackedWriter out;
  for (size_t i = 0; i < files; ++i) {
    PageMarks all;
    bool is_known = true;
    for (PackedReader& one : in) is_known &= all.add_packed(one.get_string());
    out.put_string(PageMarks::pack(is_known ? std::optional(all.all()) : std::nullopt));
  }
  const bool is_whole = std::all_of(in.begin(), in.end(), [](auto& one) { return one.ok(); });
  return is_whole ? Result<std::string>(out.take())
                  : errno_error("what was written of shared memory", EBADMSG);
}

}  // namespace krg
