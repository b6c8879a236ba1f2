// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/saved_memory.h"

#include <algorithm>

#include "packed_bytes.h"

namespace krg {
namespace {

constexpr uint8_t kMemoryVersion = 1;
constexpr uint32_t kMostParts = 1u << 20;  // what is malformed must not take memory
constexpr uint64_t kMostBytes = uint64_t{1} << 41;

uint32_t get_count(PackedReader& in) {
  return std::min(in.get<uint32_t>(), kMostParts);
}

// It lies below /dev/shm, whatever is there.
bool is_good_name(std::string_view name) {
  while (!name.empty()) {
    const std::string_view part = name.substr(0, name.find('/'));
    if (part.empty() || part == "." || part == "..") return false;
    name.remove_prefix(std::min(part.size() + 1, name.size()));
  }
  return true;
}

bool is_good(const SavedMemory& memory) {
  const auto& names = memory.names;
  return memory.bytes <= kMostBytes && memory.covered <= kMostBytes &&
         (memory.is_file() || !names.empty()) && (memory.is_file() || !memory.is_segment) &&
         std::none_of(names.begin(), names.end(), [](const std::string& name) {
           return name.empty() || name.back() == '/' || !is_good_name(name);
         });
}

SavedMemory get_memory(PackedReader& in) {
  SavedMemory memory;
  memory.id = in.get<uint64_t>();
  for (uint32_t* number :
       {&memory.mode, &memory.uid, &memory.gid, &memory.is_segment, &memory.is_removed})
    *number = in.get<uint32_t>();
  memory.bytes = in.get<uint64_t>();
  memory.covered = in.get<uint64_t>();
  memory.object = in.get<SavedIpcObject>();
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    memory.names.emplace_back(in.get_string());
  memory.target = in.get_string();
  return memory;
}

}  // namespace

std::string pack_memories(const std::vector<SavedMemory>& memories) {
  PackedWriter out;
  out.put(kMemoryVersion).put(static_cast<uint32_t>(memories.size()));
  for (const SavedMemory& memory : memories) {
    out.put(memory.id).put(memory.mode).put(memory.uid).put(memory.gid);
    out.put(memory.is_segment).put(memory.is_removed).put(memory.bytes).put(memory.covered);
    out.put(memory.object).put(static_cast<uint32_t>(memory.names.size()));
    for (const std::string& name : memory.names) out.put_string(name);
    out.put_string(memory.target);
  }
  return out.take();
}

Result<std::vector<SavedMemory>> unpack_memories(std::string_view bytes) {
  std::vector<SavedMemory> memories;
  if (bytes.empty()) return memories;
  PackedReader in(bytes);
  const auto version = in.get<uint8_t>();
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    memories.push_back(get_memory(in));
  if (version != kMemoryVersion || !in.ok() || !in.at_end() ||
      !std::all_of(memories.begin(), memories.end(), is_good))
    return errno_error("saved shared memory", EBADMSG);
  return memories;
}

}  // namespace krg
