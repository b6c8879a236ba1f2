// SharedSegments: the System V shared memory segments of the session: keys, ids, owners and times,
// by the rules of the kernel. Pure: what a segment holds and who maps it are none of its business.
//
// Owner: SegmentHome. Threads: the loop's thread. Invariant: an id is index + 32768 * sequence, as
// the kernel's. Source: shmget(2), shmctl(2), svipc(7), sysvipc(7).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "segment_messages.h"
#include "shared_names.h"

namespace krg {

inline constexpr size_t kMaxSegments = 4096;  // SHMMNI's default

class SharedSegments {
 public:
  // The segment that shmget(2) finds. Errors: ENOENT (there is none, and it is to be made: see
  // add() when `flags` has IPC_CREAT), EEXIST, EINVAL (size), EACCES.
  Result<SegmentState> find(const SharedCaller& caller, int32_t key, uint64_t size,
                            int flags) const;
  // Errors: ENOSPC.
  Result<SegmentState> add(const SharedCaller& caller, int32_t key, uint64_t size, int flags,
                           pid_t creator, FileId file, int64_t now_s);
  // Errors of those that name an id: EINVAL, EIDRM; EACCES, EPERM.
  Result<SegmentState> attach(const SharedCaller& caller, int32_t id, int flags, pid_t pid,
                              int64_t now_s);
  void detached(FileId file, pid_t pid, int64_t now_s);
  Result<SegmentState> state(const SharedCaller& caller, int32_t id, bool by_index,
                             bool anybody) const;
  Status set(const SharedCaller& caller, int32_t id, uint32_t mode, uint32_t uid, uint32_t gid,
             int64_t now_s);
  // Its key is free from now on; the segment stays until drop().
  Result<SegmentState> remove(const SharedCaller& caller, int32_t id);
  void drop(FileId file);
  // One that a checkpoint has, under its id and key. Errors: EEXIST: another one has one of them.
  Status restore(const SegmentState& segment);

  std::vector<SegmentState> all() const;
  SegmentTotals totals() const;

 private:
  Result<SegmentState*> by_id(int32_t id);

  std::map<int32_t, SegmentState> segments_;  // by index
  int32_t sequence_ = 0;
};

}  // namespace krg
