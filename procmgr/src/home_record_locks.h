// HomeRecordLocks: locks by fcntl(2) of files that are at this node, for processes of any node. The
// kernel keeps them all, so that everybody here sees them: a process that has left a shadow has its
// own, by that; for others krgd has a description of the file for each owner, with locks by
// F_OFD_SETLK. Who waits is tried again and again.
//
// Owner: Descriptors. Threads: the loop's thread; files are opened and locked in workers.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "home_file.h"
#include "ipc/exit_watch.h"
#include "krg/procmgr/lock_holders.h"
#include "process_fds.h"
#include "record_lock_table.h"

namespace krg {

// A process, or with `description` one open file of it (F_OFD_SETLK), which is named so.
struct LockOwner {
  pid_t process = 0;
  uint64_t description = 0;
  auto operator<=>(const LockOwner&) const = default;
};

class HomeRecordLocks {
 public:
  using Done = std::function<void(Result<RecordLock>)>;
  // The description that is locked itself.
  static constexpr LockOwner kOfDescription{0, 0};

  explicit HomeRecordLocks(NodeContext& node);
  // REQUIRES: before any process runs.
  void set_holders(LockHolders& holders) { holders_ = &holders; }

  // `command`: F_SETLK, until it is had if it `waits`, or F_GETLK. Errors: of fcntl(2); EINTR after
  // cancel().
  void lock(StreamOperation operation, std::shared_ptr<UniqueFd> file, const LockOwner& owner,
            int command, bool waits, const RecordLock& lock, Done done);
  void cancel(StreamOperation operation);
  void forget_node(NodeId node);
  // As the answer to that process's F_GETLK of a file of this node, where a lock is in its way that
  // the kernel knows as krgd's: of a process that executes elsewhere. F_UNLCK: none.
  RecordLock blocking(const FdIdentity& file, pid_t process, const RecordLock& wanted) const;
  // Whether there is any such lock of the file.
  bool has_locks_on(const FdIdentity& file) const;
  // The owner has closed that file.
  void let_go(const LockOwner& owner, int file);
  // Whether a process that executes elsewhere, but is to come here, has locks here.
  bool has_locks(pid_t process) const;
  bool executes_here(pid_t process) const { return !holders_ || holders_->executes_here(process); }

 private:
  struct Key {
    LockOwner owner;
    FdIdentity file;
    auto operator<=>(const Key&) const = default;
  };
  struct Wait {
    std::shared_ptr<UniqueFd> file;
    FdIdentity identity;  // the file's
    LockOwner owner;
    int command;
    bool waits;
    RecordLock lock;
    Done done;
    std::chrono::microseconds pause;
    bool is_cancelled = false;
    bool by_description = false;  // of krgd's, made for the owner
  };
  void attempt(StreamOperation operation);
  void attempt_on(StreamOperation operation, std::shared_ptr<UniqueFd> description);
  void on_attempt(StreamOperation operation, Result<RecordLock> had);
  void find_description(const Wait& wait, std::function<void(std::shared_ptr<UniqueFd>)> done);
  void note(const Wait& wait);
  RecordLock with_holder(const Wait& wait, const RecordLock& answer) const;
  void forget(const Key& key);
  void watch(pid_t owner);
  void forget_owner(pid_t owner);

  NodeContext& node_;
  LockHolders* holders_ = nullptr;  // none: no process leaves a shadow
  std::map<StreamOperation, Wait> waits_;
  std::map<Key, std::shared_ptr<UniqueFd>> descriptions_;
  // What those have, and for whom: the kernel tells neither (F_GETLK says -1).
  std::map<FdIdentity, RecordLockTable> held_;
  std::map<pid_t, std::vector<Messenger::Reply>> watchers_;  // of processes that live here
  ExitWatch exits_;
};

}  // namespace krg
