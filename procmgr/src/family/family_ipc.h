// FamilyIpc: which of the System V objects and POSIX queues of this node's kernel a stopped family
// has, and what is in them. They outlive processes, and nothing tells whose they are: a family that
// is alone on its node has all of them; else those that its members were the last to use, when
// nobody else was.
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "image/frozen_process.h"
#include "image/process_image.h"
#include "ipc/native_ipc.h"
#include "krg/procmgr/saved_ipc.h"

namespace krg {

// Processes of this node that are neither members nor apart.
std::set<pid_t> others_than(const std::set<pid_t>& members,
                            const std::function<bool(pid_t)>& is_apart);

class FamilyIpc {
 public:
  // Takes note of the segments that a member has attached. Errors: ENOTSUP: a part of one.
  Status add(const ProcessImage& image);
  // `queues`: those that members have open, which come first. `members`: of all nodes, and who is
  // held for one. `frozen`: those of this node. Errors: ENOTSUP: it is not known whose one is, or
  // it cannot be had again.
  Result<SavedIpc> take(std::vector<NativePosixQueue>& queues, const std::set<pid_t>& members,
                        const std::function<bool(pid_t)>& is_apart,
                        const std::map<pid_t, FrozenProcess*>& frozen) const;

 private:
  struct Segment {
    uint64_t bytes = 0;
    bool is_written = false;  // by a member: its pages are among those of members
  };
  std::map<int, Segment> segments_;  // attached
};

// What members had to be undone at their ends is so again. Errors: those of semop(2).
Status put_undo_back(const SavedIpc& ipc, const std::function<FrozenProcess*(pid_t)>& find_process);

}  // namespace krg
