// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_segments.h"

#include <sys/ipc.h>
#include <sys/shm.h>

#include <algorithm>

#include "krg/shmem/page_set.h"

namespace krg {
namespace {

constexpr int32_t kIndexes = 32768;
constexpr int32_t kSequences = 65536;
constexpr uint32_t kModeBits = 0777;
constexpr uint32_t kToRead = 4, kToWrite = 2;

Error denied(int number) {
  return errno_error({}, number);
}

bool is_owner(const SharedCaller& caller, const SegmentState& segment) {
  return caller.uid == 0 || caller.uid == segment.uid || caller.uid == segment.creator_uid;
}

// svipc(7): owner and creator count alike.
Status may(const SharedCaller& caller, const SegmentState& segment, uint32_t wanted) {
  if (caller.uid == 0) return {};
  auto in_group = [&](gid_t group) {
    return caller.gid == group ||
           std::find(caller.groups.begin(), caller.groups.end(), group) != caller.groups.end();
  };
  uint32_t granted = segment.mode;
  if (is_owner(caller, segment))
    granted >>= 6;
  else if (in_group(segment.gid) || in_group(segment.creator_gid))
    granted >>= 3;
  if ((granted & wanted) != wanted) return denied(EACCES);
  return {};
}

// What shmget's mode asks for of a segment that is there.
uint32_t rights_asked_by(int flags) {
  return static_cast<uint32_t>((flags >> 6 | flags >> 3 | flags) & 7) & (kToRead | kToWrite);
}

}  // namespace

Result<SegmentState> SharedSegments::find(const SharedCaller& caller, int32_t key, uint64_t size,
                                          int flags) const {
  auto found = std::find_if(segments_.begin(), segments_.end(), [&](const auto& entry) {
    return key != IPC_PRIVATE && entry.second.key == key;
  });
  if (found == segments_.end()) {
    const bool makes = key == IPC_PRIVATE || (flags & IPC_CREAT);
    return denied(makes && size == 0 ? EINVAL : ENOENT);
  }
  const SegmentState& segment = found->second;
  if ((flags & IPC_CREAT) && (flags & IPC_EXCL)) return denied(EEXIST);
  if (size > segment.size) return denied(EINVAL);
  if (auto granted = may(caller, segment, rights_asked_by(flags)); !granted) return granted.error();
  return segment;
}

Result<SegmentState> SharedSegments::add(const SharedCaller& caller, int32_t key, uint64_t size,
                                         int flags, pid_t creator, FileId file, int64_t now_s) {
  if (segments_.size() >= kMaxSegments) return denied(ENOSPC);
  int32_t index = 0;
  while (segments_.contains(index)) ++index;
  SegmentState segment;
  segment.id = index + kIndexes * (sequence_++ % kSequences);
  segment.key = key;
  segment.mode = static_cast<uint32_t>(flags) & kModeBits;
  segment.uid = segment.creator_uid = caller.uid;
  segment.gid = segment.creator_gid = caller.gid;
  segment.creator_pid = creator;
  segment.file = file;
  segment.size = size;
  segment.changed_s = now_s;
  segments_.emplace(index, segment);
  return segment;
}

Result<SegmentState*> SharedSegments::by_id(int32_t id) {
  auto found = id < 0 ? segments_.end() : segments_.find(id % kIndexes);
  if (found == segments_.end()) return denied(EINVAL);
  if (found->second.id != id) return denied(EIDRM);
  return &found->second;
}

Result<SegmentState> SharedSegments::attach(const SharedCaller& caller, int32_t id, int flags,
                                            pid_t pid, int64_t now_s) {
  auto segment = by_id(id);
  if (!segment) return segment.error();
  const uint32_t wanted = flags & SHM_RDONLY ? kToRead : kToRead | kToWrite;
  if (auto granted = may(caller, **segment, wanted); !granted) return granted.error();
  (*segment)->attached_s = now_s;
  (*segment)->last_pid = pid;
  return **segment;
}

void SharedSegments::detached(FileId file, pid_t pid, int64_t now_s) {
  for (auto& [index, segment] : segments_)
    if (segment.file == file) {
      segment.detached_s = now_s;
      segment.last_pid = pid;
    }
}

Result<SegmentState> SharedSegments::state(const SharedCaller& caller, int32_t id, bool by_index,
                                           bool anybody) const {
  auto found = id < 0 ? segments_.end() : segments_.find(by_index ? id : id % kIndexes);
  if (found == segments_.end()) return denied(EINVAL);
  const SegmentState& segment = found->second;
  if (!by_index && segment.id != id) return denied(EIDRM);
  if (!anybody)
    if (auto granted = may(caller, segment, kToRead); !granted) return granted.error();
  return segment;
}

Status SharedSegments::set(const SharedCaller& caller, int32_t id, uint32_t mode, uint32_t uid,
                           uint32_t gid, int64_t now_s) {
  auto segment = by_id(id);
  if (!segment) return segment.error();
  if (!is_owner(caller, **segment)) return denied(EPERM);
  (*segment)->mode = ((*segment)->mode & ~kModeBits) | (mode & kModeBits);
  (*segment)->uid = uid;
  (*segment)->gid = gid;
  (*segment)->changed_s = now_s;
  return {};
}

Result<SegmentState> SharedSegments::remove(const SharedCaller& caller, int32_t id) {
  auto segment = by_id(id);
  if (!segment) return segment.error();
  if (!is_owner(caller, **segment)) return denied(EPERM);
  (*segment)->key = IPC_PRIVATE;
  (*segment)->mode |= SHM_DEST;
  return **segment;
}

void SharedSegments::drop(FileId file) {
  std::erase_if(segments_, [&](const auto& entry) { return entry.second.file == file; });
}

Status SharedSegments::restore(const SegmentState& segment) {
  const bool has_key = segment.key != IPC_PRIVATE &&
                       std::any_of(segments_.begin(), segments_.end(), [&](const auto& entry) {
                         return entry.second.key == segment.key;
                       });
  if (segment.id < 0 || has_key || !segments_.emplace(segment.id % kIndexes, segment).second)
    return denied(EEXIST);
  return {};
}

std::vector<SegmentState> SharedSegments::all() const {
  std::vector<SegmentState> states;
  for (const auto& [index, segment] : segments_) states.push_back(segment);
  return states;
}

SegmentTotals SharedSegments::totals() const {
  SegmentTotals totals;
  totals.segments = static_cast<int32_t>(segments_.size());
  if (!segments_.empty()) totals.highest_index = segments_.rbegin()->first;
  for (const auto& [index, segment] : segments_) totals.pages += page_count(segment.size);
  return totals;
}

}  // namespace krg
