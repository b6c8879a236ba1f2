// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/local_capture.h"

namespace krg {

FamilySnapshot::FamilySnapshot() = default;
FamilySnapshot::~FamilySnapshot() = default;

Result<std::vector<FamilySnapshot::Pages>> FamilySnapshot::pages() const {
  std::vector<Pages> all;
  for (uint32_t i = 0; i < members_.size(); ++i) {
    if (!members_[i]) continue;
    auto ranges = members_[i]->pages();
    if (!ranges) return ranges.error();
    for (const PageRange& range : *ranges) all.push_back({i, range});
  }
  for (const auto& [number, file] : files_)
    for (const PageRange& range : file->pages) all.push_back({number, range});
  for (const auto& [number, memory] : memories_)
    for (const PageRange& range : memory.ranges()) all.push_back({number, range});
  return all;
}

const std::byte* FamilySnapshot::find_all(uint32_t member,
                                          std::span<const PageRange> ranges) const {
  if (const auto file = files_.find(member); file != files_.end())
    return file->second->copied.find_all(ranges);
  if (const auto memory = memories_.find(member); memory != memories_.end())
    return memory->second.changed.find_all(ranges);
  const auto& pages = members_.at(member);
  return pages ? pages->find_all(ranges) : nullptr;
}

Status FamilySnapshot::read(uint32_t member, std::span<const PageRange> ranges,
                            std::span<std::byte> into) const {
  if (const auto file = files_.find(member); file != files_.end())
    return file->second->copied.read(ranges, into);
  if (const auto memory = memories_.find(member); memory != memories_.end())
    return memory->second.changed.read(ranges, into);
  const auto& pages = members_.at(member);
  return pages ? pages->read(ranges, into) : errno_error("a member of another node", ESRCH);
}

}  // namespace krg
