// LockQueries: F_GETLK of fcntl(2), and F_OFD_GETLK of files that are no stream's. Neither FUSE nor
// the kernel has the pid of a lock's process that is on another node: FUSE says 0, and of a lock
// that krgd keeps here for it the kernel says -1. So the call stops, and who keeps the locks is
// asked. What the kernel knows by itself is left to it.
//
// Owner: Descriptors. Threads: the loop's thread; sizes of files are asked for in workers.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "home_record_locks.h"
#include "krg/procmgr/session_fs.h"
#include "krg/procmgr/syscall_broker.h"
#include "stream_tree.h"

namespace krg {

class LockQueries {
 public:
  // Registers with `broker`; all must outlive its calls.
  LockQueries(NodeContext& node, SyscallBroker& broker, SessionFs& fs, StreamTree& tree,
              HomeRecordLocks& locks);
  LockQueries(const LockQueries&) = delete;
  LockQueries& operator=(const LockQueries&) = delete;

 private:
  struct Job;
  using JobPtr = std::shared_ptr<Job>;

  void handle(SyscallBroker::Call call);
  void find_start(const JobPtr& job);
  void ask(const JobPtr& job, int64_t base);
  static void answer(const JobPtr& job, const Result<RecordLock>& found);

  NodeContext& node_;
  SessionFs& fs_;
  StreamTree& tree_;
  HomeRecordLocks& locks_;
};

}  // namespace krg
