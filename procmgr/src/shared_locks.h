// SharedLocks: locks by flock(2) and fcntl(2) of the session's shared files (/dev/shm) and message
// queues (/dev/mqueue). They are kept by the node that keeps the shared files' names, whoever has a
// file open where; each node knows which ones its own processes have.
//
// Owner: StreamTree. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <set>

#include "flock_keeper.h"
#include "home_record_locks.h"
#include "ipc/exit_watch.h"
#include "krg/procmgr/node_context.h"
#include "record_lock_table.h"

namespace krg {

class SharedLocks {
 public:
  explicit SharedLocks(NodeContext& node);
  SharedLocks(const SharedLocks&) = delete;
  SharedLocks& operator=(const SharedLocks&) = delete;

  // `operation` names a wait for cancel(), which ends it with EINTR.
  void flock(uint64_t operation, FileId file, const FlockRequest& asked, FsReply<int> reply);
  // How many descriptors of a file a process has.
  using CountOpen = std::function<unsigned(pid_t)>;
  void record_lock(uint64_t operation, FileId file, const RecordLockRequest& asked,
                   const LockOwner& owner, const CountOpen& count_open, FsReply<RecordLock> reply);
  void cancel(uint64_t operation);
  // The description has been closed.
  void drop_flock(FileId file, uint64_t owner);
  // A description of the file has been closed: a process that has fewer descriptors than when it
  // locked has closed one, and so has no locks any more (but those of descriptions that it has).
  void drop_record_locks(FileId file, const CountOpen& count_open);
  // Whether a process of this node has locked it, or waits for that.
  bool is_flocked(FileId file) const;
  bool is_record_locked(FileId file) const;

 private:
  // Of one node, kSharedHome.
  struct Home {
    RecordLockTable records, flocks;
  };
  struct Mine {
    std::set<uint64_t> flockers;
    std::map<LockOwner, unsigned> owners;  // and how many descriptors of the file each has had
  };
  using Answered = std::function<void(Result<RecordLock>)>;

  void keep_all();
  void ask(uint64_t operation, struct SharedLock message, Answered done);
  void unlock(FileId file, bool by_flock, uint64_t process, uint64_t description);
  // Has its locks end if it has closed a descriptor since it locked; whether that is so.
  bool end_if_closed(FileId file, const LockOwner& owner, unsigned& had, unsigned has);
  void process_ended(pid_t process);
  void forget_if_unused(FileId file);

  NodeContext& node_;
  std::unique_ptr<Home> home_;
  std::map<FileId, Mine> mine_;
  std::set<uint64_t> asking_;
  ExitWatch exits_;
};

}  // namespace krg
