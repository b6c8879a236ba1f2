// Locks of files of krgfs. Those of streams are kept at their homes, those of /dev/shm and of
// /dev/mqueue for all nodes by one (SharedLocks); those by flock(2) of other files by a table,
// those by fcntl(2) by the kernel, on files that krgd makes for that.
//
// Nobody tells which process closes a descriptor of a description that it shares with others, so
// locks by fcntl(2) end when the description is closed by all.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "in_worker.h"
#include "ipc/posix_queue_tree.h"
#include "krg/runtime/log.h"
#include "process_fds.h"
#include "process_status.h"
#include "shared_tree.h"
#include "stream_replies.h"
#include "stream_tree.h"
#include "text_scan.h"
#include "whole_file.h"

namespace krg {
namespace {

// Owners that are remembered; each costs a few bytes.
constexpr size_t kMostKnownOwners = 4096;
// A caller is asked what it does while it is on its way to sleep.
constexpr int kTries = 200;
constexpr useconds_t kPause_us = 50;
// In the number by which locks of a queue's descriptors are kept: FileIds have 56 bits.
constexpr FileId kQueuesBit = FileId{1} << 60;

// Whether that thread waits in fcntl(2) for a lock of a description, not of its process: FUSE
// does not say.
bool locks_description(pid_t tid) {
  for (int tries = 0; tries < kTries; ++tries, usleep(kPause_us)) {
    const auto text = read_whole_file(fmt::format("/proc/{}/syscall", tid));
    if (!text) return false;
    const auto words = split_words(*text);
    if (words.size() < 3) continue;  // "running"
    const auto command = to_number<int64_t>(words[2].substr(2), 16).value_or(0);
    return command == F_OFD_SETLK || command == F_OFD_SETLKW || command == F_OFD_GETLK;
  }
  return false;
}

}  // namespace

FileId StreamTree::shared_file(ino_t inode) const {
  if (const FileId file = fs_.file_of(SharedTree::kName, inode)) return file;
  const FileId queue = fs_.file_of(PosixQueueTree::kName, inode);
  return queue != 0 ? queue | kQueuesBit : 0;
}

// It is the description's, which is at its home, whoever has that open where.
void StreamTree::flock(const FsCaller& caller, ino_t inode, uint64_t handle,
                       const FlockRequest& asked, FsReply<int> reply) {
  if (fs_.file_of(kName, inode) == 0) return flock_here(caller, inode, asked, std::move(reply));
  auto found = handles_.find(handle);
  if (found == handles_.end()) return reply(errno_error("", EBADF));
  const StreamSource& source = found->second.source;
  StreamFlock message;
  message.what = asked.what;
  message.waits = asked.waits;
  auto later = std::make_shared<FsReply<int>>(std::move(reply));
  carry_out_at_home(caller, source, message, {}, [later](const Result<std::string>& answer) {
    if (!answer) return (*later)(as_io_error(answer.error()));
    (*later)(0);
  });
}

void StreamTree::flock_here(const FsCaller& caller, ino_t inode, const FlockRequest& asked,
                            FsReply<int> reply) {
  if (const FileId file = shared_file(inode))
    return shared_locks_.flock(caller.unique, file, asked, std::move(reply));
  auto later = std::make_shared<FsReply<int>>(std::move(reply));
  flocks_.lock(inode, asked, caller.unique,
               [later](Status had) { had ? (*later)(0) : (*later)(had.error()); });
}

void StreamTree::drop_flock(ino_t inode, uint64_t owner) {
  if (const FileId file = shared_file(inode)) return shared_locks_.drop_flock(file, owner);
  flocks_.release(inode, owner);
}

bool StreamTree::is_flocked(ino_t inode) const {
  return flocks_.is_locked(inode) || shared_locks_.is_flocked(shared_file(inode));
}

// ---- by fcntl(2) ----

void StreamTree::find_owner(pid_t caller, uint64_t owner, std::function<void(LockOwner)> done) {
  const auto status = read_process_status(caller);
  const pid_t process = status ? status->pid : caller;
  const auto key = std::pair(process, owner);
  if (auto known = known_owners_.find(key); known != known_owners_.end())
    return done(known->second);
  in_worker(
      node_.workers, [caller] { return locks_description(caller); },
      [this, key, done = std::move(done)](bool of_description) {
        if (known_owners_.size() >= kMostKnownOwners) known_owners_.clear();
        const LockOwner found{key.first, of_description ? key.second : 0};
        known_owners_.emplace(key, found);
        done(found);
      });
}

void StreamTree::record_lock(const FsCaller& caller, ino_t inode, uint64_t handle,
                             const RecordLockRequest& asked, FsReply<RecordLock> reply) {
  auto later = std::make_shared<FsReply<RecordLock>>(std::move(reply));
  finding_owners_.emplace(caller.unique, false);
  find_owner(caller.tid, asked.owner, [=, this](LockOwner owner) {
    const auto finding = finding_owners_.extract(caller.unique);
    if (finding && finding.mapped()) return (*later)(errno_error("interrupted", EINTR));
    if (fs_.file_of(kName, inode) == 0)
      return record_lock_here(caller, inode, asked, owner, std::move(*later));
    auto found = handles_.find(handle);
    if (found == handles_.end()) return (*later)(errno_error("", EBADF));
    found->second.owners.insert(owner.process);
    record_lock_at_home(caller, found->second.source, asked, owner, std::move(*later));
  });
}

void StreamTree::find_lock(pid_t process, ino_t inode, const RecordLock& wanted,
                           std::function<void(Result<RecordLock>)> done) {
  FsCaller caller;
  caller.tid = process;
  caller.unique = std::exchange(next_finding_, next_finding_ + 2);
  const RecordLockRequest asked{.command = F_GETLK, .lock = wanted};
  FsReply<RecordLock> reply(std::move(done));
  const FileId file = fs_.file_of(kName, inode);
  if (file == 0) return record_lock_here(caller, inode, asked, {process, 0}, std::move(reply));
  const StreamSource* source = live_source(file);
  if (source == nullptr) return reply(errno_error("", EBADF));
  record_lock_at_home(caller, *source, asked, {process, 0}, std::move(reply));
}

void StreamTree::record_lock_at_home(const FsCaller& caller, const StreamSource& source,
                                     const RecordLockRequest& asked, const LockOwner& owner,
                                     FsReply<RecordLock> reply) {
  StreamRecordLock message;
  message.of_description = owner.description != 0;
  message.waits = asked.waits;
  message.command = asked.command;
  message.owner = owner.process;
  message.lock = asked.lock;
  auto later = std::make_shared<FsReply<RecordLock>>(std::move(reply));
  carry_out_at_home(caller, source, message, {}, [later](const Result<std::string>& answer) {
    auto lock = value_of<RecordLock>(answer);
    lock ? (*later)(*lock) : (*later)(as_io_error(lock.error()));
  });
}

void StreamTree::record_lock_here(const FsCaller& caller, ino_t inode,
                                  const RecordLockRequest& asked, const LockOwner& owner,
                                  FsReply<RecordLock> reply) {
  if (const FileId file = shared_file(inode))
    return shared_locks_.record_lock(caller.unique, file, asked, owner, descriptors_of(inode),
                                     std::move(reply));
  LockedFile& locked = locked_files_[inode];
  if (!locked.file) locked.file = std::make_shared<UniqueFd>(memfd_create("locks", MFD_CLOEXEC));
  locked.owners.insert(owner);
  auto later = std::make_shared<FsReply<RecordLock>>(std::move(reply));
  record_locks_.lock({node_.self, caller.unique}, locked.file, owner, asked.command, asked.waits,
                     asked.lock, [later](Result<RecordLock> had) {
                       had ? (*later)(*had) : (*later)(as_io_error(had.error()));
                     });
}

SharedLocks::CountOpen StreamTree::descriptors_of(ino_t inode) const {
  return [identity = FdIdentity{fs_.device(), inode}](pid_t process) {
    return count_open(process, identity);
  };
}

// Which open file it was, the trees do not tell apart: those who have one no more have no locks.
void StreamTree::drop_record_locks(ino_t inode) {
  const SharedLocks::CountOpen descriptors = descriptors_of(inode);
  shared_locks_.drop_record_locks(shared_file(inode), descriptors);
  auto locked = locked_files_.find(inode);
  if (locked == locked_files_.end()) return;
  std::erase_if(locked->second.owners, [&](const LockOwner& owner) {
    if (descriptors(owner.process) > 0) return false;
    record_locks_.let_go(owner, locked->second.file->get());
    return true;
  });
  if (locked->second.owners.empty()) locked_files_.erase(locked);
}

bool StreamTree::is_record_locked(ino_t inode) const {
  if (shared_locks_.is_record_locked(shared_file(inode))) return true;
  auto locked = locked_files_.find(inode);
  if (locked == locked_files_.end()) return false;
  struct flock any {};
  any.l_type = F_WRLCK;
  return fcntl(locked->second.file->get(), F_OFD_GETLK, &any) != 0 || any.l_type != F_UNLCK;
}

void StreamTree::leaves(ino_t inode, pid_t owner) {
  auto import = imports_.find(fs_.file_of(kName, inode));
  if (import == imports_.end()) return;
  for (uint64_t number : import->second.handles) {
    Handle& handle = handles_.at(number);
    if (handle.owners.erase(owner) != 0) handle.left.insert(owner);
  }
}

void StreamTree::stays(ino_t inode) {
  auto import = imports_.find(fs_.file_of(kName, inode));
  if (import == imports_.end()) return;
  for (uint64_t number : import->second.handles) {
    Handle& handle = handles_.at(number);
    handle.owners.merge(handle.left);
  }
}

// Of one that has moved on, its new node tells; of one that has ended, all have ended.
void StreamTree::let_go_at_home(const Handle& handle) {
  if (handle.source.home == kNoNode || handle.source.pollable) return;
  for (pid_t owner : handle.owners) {
    if (!record_locks_.executes_here(owner)) continue;
    StreamLetGo let_go;
    let_go.owner = owner;
    let_go.home = handle.source.id;
    if (!node_.messenger.send(handle.source.home, let_go))
      log_debug("streams", "n{} is gone", handle.source.home.value);
  }
}

}  // namespace krg
