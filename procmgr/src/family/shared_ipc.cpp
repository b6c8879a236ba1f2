// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/shared_ipc.h"

#include <algorithm>

namespace krg {
namespace {

bool is_shared_queue(const FamilyFile& file) {
  return file.kind == FamilyFile::Kind::kQueue && file.stream == kSharedQueue;
}

}  // namespace

Ipc::Whose whose_ipc(const ProcessFamily& family,
                     const std::map<NodeId, FamilyDescription>& described) {
  Ipc::Whose whose;
  for (const FamilyMember& member : family.members) whose.members.push_back(member.pid);
  for (const auto& [node, description] : described) {
    whose.others.insert(whose.others.end(), description.others.begin(), description.others.end());
    for (const FamilyFile& file : description.files)
      if (is_shared_queue(file)) whose.held.push_back(file.offset);
  }
  return whose;
}

Status add_shared_ipc(Ipc::Saved shared, ProcessFamily& family) {
  const auto first = static_cast<uint32_t>(family.ipc.posix_queues.size());
  for (FamilyFile& file : family.files) {
    if (!is_shared_queue(file)) continue;
    const auto known = std::find(shared.queues.begin(), shared.queues.end(), file.offset);
    if (known == shared.queues.end()) return errno_error("a POSIX message queue", ESTALE);
    file.pipe = first + static_cast<uint32_t>(known - shared.queues.begin());
    file.stream = 0;
    file.offset = 0;
  }
  family.ipc.append(std::move(shared.ipc));
  return {};
}

}  // namespace krg
