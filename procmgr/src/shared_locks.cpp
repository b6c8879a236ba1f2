// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_locks.h"

#include <algorithm>
#include <cstring>

#include "alive.h"
#include "krg/runtime/log.h"
#include "packed_bytes.h"
#include "shared_files.h"

namespace krg {

// Request to the home: a lock for a process, or a description, of the sender's node. Reply: a
// RecordLock, what F_GETLK tells. Errors: EAGAIN, EDEADLK; EINTR for a SharedLockCancel.
struct SharedLock {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 9;
  enum What : uint8_t { kRecord, kTest, kFlock };
  uint8_t version = 1;
  uint8_t what = kRecord;
  uint8_t waits = 0;
  uint8_t unused[5] = {};
  FileId file = 0;
  uint64_t process = 0, description = 0;
  uint64_t operation = 0;
  RecordLock lock;
};
static_assert(sizeof(SharedLock) == 64);

namespace {

// To the home: all that it has of the file is free.
struct SharedUnlock {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 10;
  uint8_t version = 1;
  uint8_t by_flock = 0;
  uint8_t unused[6] = {};
  FileId file = 0;
  uint64_t process = 0, description = 0;
};
static_assert(sizeof(SharedUnlock) == 32);

struct SharedLockCancel {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 11;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t operation = 0;
};
static_assert(sizeof(SharedLockCancel) == 16);

int32_t lock_type(FlockRequest::What what) {
  if (what == FlockRequest::What::kUnlock) return F_UNLCK;
  return what == FlockRequest::What::kShared ? F_RDLCK : F_WRLCK;
}

}  // namespace

SharedLocks::SharedLocks(NodeContext& node)
    : node_(node), exits_(node.loop, [this](pid_t ended) { process_ended(ended); }) {
  if (node.self == kSharedHome) keep_all();
}

// --- at the home ---

void SharedLocks::keep_all() {
  home_ = std::make_unique<Home>();
  node_.messenger.on_request<SharedLock>([this](NodeId from, const SharedLock& asked,
                                                std::string_view, Messenger::Reply reply) {
    const RecordLockTable::Request request{
        {from, asked.process, asked.description},
        asked.lock,
        asked.waits != 0,
        asked.operation,
        asked.what == SharedLock::kRecord && asked.description == 0};
    if (asked.what == SharedLock::kTest)
      return reply.ok(object_bytes(home_->records.blocking(asked.file, request.owner, asked.lock)));
    const bool by_flock = asked.what == SharedLock::kFlock;
    // As the kernel does: another lock of the same description is given back first.
    if (by_flock) home_->flocks.release(asked.file, request.owner);
    RecordLockTable& table = by_flock ? home_->flocks : home_->records;
    table.lock(asked.file, request,
               [lock = asked.lock, reply = shared(std::move(reply))](const Status& had) {
                 had ? reply->ok(object_bytes(lock)) : reply->fail(had.error());
               });
  });
  node_.messenger.on<SharedUnlock>(
      [this](NodeId from, const SharedUnlock& asked, std::string_view) {
        RecordLockTable& table = asked.by_flock ? home_->flocks : home_->records;
        table.release(asked.file, {from, asked.process, asked.description});
      });
  node_.messenger.on<SharedLockCancel>(
      [this](NodeId from, const SharedLockCancel& asked, std::string_view) {
        home_->records.cancel(from, asked.operation);
        home_->flocks.cancel(from, asked.operation);
      });
  node_.messenger.on_peer_failure([this](NodeId failed) {
    home_->records.forget_node(failed);
    home_->flocks.forget_node(failed);
  });
}

// --- where the processes are ---

void SharedLocks::ask(uint64_t operation, SharedLock message, Answered done) {
  exits_.drain();  // what ended before this has its effect first
  message.operation = operation;
  asking_.insert(operation);
  node_.messenger.request(
      kSharedHome, message, {},
      [this, operation, done = std::move(done)](const Result<std::string>& got) {
        asking_.erase(operation);
        if (!got) return done(got.error());
        RecordLock lock;
        if (got->size() != sizeof lock)
          return done(errno_error("answer of another version", EPROTO));
        std::memcpy(&lock, got->data(), sizeof lock);
        done(lock);
      });
}

void SharedLocks::flock(uint64_t operation, FileId file, const FlockRequest& asked,
                        FsReply<int> reply) {
  SharedLock message;
  message.what = SharedLock::kFlock;
  message.waits = asked.waits;
  message.file = file;
  message.process = asked.owner;
  message.lock.type = lock_type(asked.what);
  mine_[file].flockers.insert(asked.owner);
  ask(operation, message,
      [this, file, asked, reply = shared(std::move(reply))](const Result<RecordLock>& had) {
        // What it had before is lost, too.
        if (!had || asked.what == FlockRequest::What::kUnlock) {
          mine_[file].flockers.erase(asked.owner);
          forget_if_unused(file);
        }
        had ? (*reply)(0) : (*reply)(had.error());
      });
}

void SharedLocks::record_lock(uint64_t operation, FileId file, const RecordLockRequest& asked,
                              const LockOwner& owner, const CountOpen& count_open,
                              FsReply<RecordLock> reply) {
  const bool only_asks = asked.command == F_GETLK;
  SharedLock message;
  message.what = only_asks ? SharedLock::kTest : SharedLock::kRecord;
  message.waits = asked.waits;
  message.file = file;
  message.process = static_cast<uint64_t>(owner.process);
  message.description = owner.description;
  message.lock = asked.lock;
  message.lock.pid = owner.description == 0 ? owner.process : -1;
  if (!only_asks && asked.lock.type != F_UNLCK) {
    const unsigned has = count_open(owner.process);
    if (has > 0) end_if_closed(file, owner, mine_[file].owners[owner], has);
    mine_[file].owners[owner] = has;
    exits_.add(owner.process);
  }
  ask(operation, message,
      [reply = shared(std::move(reply))](Result<RecordLock> had) { (*reply)(std::move(had)); });
}

void SharedLocks::cancel(uint64_t operation) {
  if (!asking_.contains(operation)) return;
  SharedLockCancel message;
  message.operation = operation;
  if (!node_.messenger.send(kSharedHome, message)) log_debug("shm", "node 0 has failed");
}

void SharedLocks::unlock(FileId file, bool by_flock, uint64_t process, uint64_t description) {
  SharedUnlock message;
  message.by_flock = by_flock;
  message.file = file;
  message.process = process;
  message.description = description;
  if (!node_.messenger.send(kSharedHome, message)) log_debug("shm", "node 0 has failed");
}

void SharedLocks::drop_flock(FileId file, uint64_t owner) {
  auto found = mine_.find(file);
  if (found == mine_.end() || found->second.flockers.erase(owner) == 0) return;
  unlock(file, true, owner, 0);
  forget_if_unused(file);
}

bool SharedLocks::end_if_closed(FileId file, const LockOwner& owner, unsigned& had, unsigned has) {
  const bool ends = has == 0 || (owner.description == 0 && has < had);
  had = std::max(had, has);
  if (ends) unlock(file, false, static_cast<uint64_t>(owner.process), owner.description);
  return ends;
}

void SharedLocks::drop_record_locks(FileId file, const CountOpen& count_open) {
  auto found = mine_.find(file);
  if (found == mine_.end()) return;
  auto& owners = found->second.owners;
  for (auto at = owners.begin(); at != owners.end();) {
    const bool ends = end_if_closed(file, at->first, at->second, count_open(at->first.process));
    at = ends ? owners.erase(at) : std::next(at);
  }
  forget_if_unused(file);
}

// Descriptions that it has locked may be others', too.
void SharedLocks::process_ended(pid_t process) {
  for (auto& [file, mine] : mine_)
    if (mine.owners.erase({process, 0}) != 0)
      unlock(file, false, static_cast<uint64_t>(process), 0);
  std::erase_if(mine_, [](const auto& entry) {
    return entry.second.owners.empty() && entry.second.flockers.empty();
  });
}

void SharedLocks::forget_if_unused(FileId file) {
  auto found = mine_.find(file);
  if (found != mine_.end() && found->second.owners.empty() && found->second.flockers.empty())
    mine_.erase(found);
}

bool SharedLocks::is_flocked(FileId file) const {
  auto found = mine_.find(file);
  return found != mine_.end() && !found->second.flockers.empty();
}

bool SharedLocks::is_record_locked(FileId file) const {
  auto found = mine_.find(file);
  return found != mine_.end() && !found->second.owners.empty();
}

}  // namespace krg
