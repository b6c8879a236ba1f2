// SPDX-License-Identifier: GPL-2.0-or-later
#include "home_record_locks.h"

#include <fcntl.h>
#include <fmt/core.h>

#include <algorithm>

#include "in_worker.h"
#include "krg/runtime/log.h"
#include "krg/runtime/run_after.h"
#include "process_fds.h"
#include "stream_messages.h"

namespace krg {
namespace {

constexpr std::chrono::microseconds kFirstPause{500}, kLongestPause{20000};

// Locks of a description, which do not wait.
Result<RecordLock> lock_description(int file, int command, const RecordLock& asked) {
  struct flock lock {};
  lock.l_type = static_cast<short>(asked.type);
  lock.l_whence = SEEK_SET;
  lock.l_start = asked.start;
  lock.l_len = asked.length;
  if (fcntl(file, command == F_GETLK ? F_OFD_GETLK : F_OFD_SETLK, &lock) != 0)
    return errno_error("fcntl");
  return RecordLock{lock.l_start, lock.l_len, lock.l_type, lock.l_pid};
}

RecordLockTable::Owner as_holder(const LockOwner& owner) {
  return {kNoNode, static_cast<uint64_t>(owner.process), owner.description};
}

// Another description of the same file.
std::shared_ptr<UniqueFd> open_anew(int file) {
  const std::string path = fmt::format("/proc/self/fd/{}", file);
  UniqueFd opened(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!opened)
    opened = UniqueFd(open(path.c_str(), (fcntl(file, F_GETFL) & O_ACCMODE) | O_CLOEXEC));
  return opened ? std::make_shared<UniqueFd>(std::move(opened)) : nullptr;
}

}  // namespace

HomeRecordLocks::HomeRecordLocks(NodeContext& node)
    : node_(node), exits_(node.loop, [this](pid_t ended) {
        auto watchers = watchers_.extract(ended);
        if (watchers.empty()) return;
        for (Messenger::Reply& reply : watchers.mapped()) reply.ok();
      }) {
  node_.messenger.on_request<LockOwnerEnds>(
      [this](NodeId, const LockOwnerEnds& ask, std::string_view, Messenger::Reply reply) {
        watchers_[ask.owner].push_back(std::move(reply));
        exits_.add(ask.owner);
      });
}

void HomeRecordLocks::lock(StreamOperation operation, std::shared_ptr<UniqueFd> file,
                           const LockOwner& owner, int command, bool waits, const RecordLock& lock,
                           Done done) {
  const auto identity = own_fd_identity(file->get());
  if (!identity) return done(identity.error());
  waits_.emplace(operation, Wait{std::move(file), *identity, owner, command, waits, lock,
                                 std::move(done), kFirstPause});
  attempt(operation);
}

void HomeRecordLocks::attempt(StreamOperation operation) {
  auto found = waits_.find(operation);
  if (found == waits_.end()) return;
  Wait& wait = found->second;
  wait.by_description = false;
  if (wait.owner == kOfDescription) return attempt_on(operation, wait.file);
  if (wait.owner.description == 0 && holders_ && holders_->holds_for(wait.owner.process))
    return holders_->lock(
        wait.owner.process, wait.file->get(), wait.command, wait.lock,
        [this, operation](Result<RecordLock> had) { on_attempt(operation, std::move(had)); });
  find_description(wait, [this, operation](std::shared_ptr<UniqueFd> description) {
    if (!description) return on_attempt(operation, errno_error("open of a locked file", ENOLCK));
    if (auto waiting = waits_.find(operation); waiting != waits_.end())
      waiting->second.by_description = true;
    attempt_on(operation, std::move(description));
  });
}

void HomeRecordLocks::attempt_on(StreamOperation operation, std::shared_ptr<UniqueFd> description) {
  auto found = waits_.find(operation);
  if (found == waits_.end()) return;
  in_worker(
      node_.workers,
      [description, command = found->second.command, lock = found->second.lock] {
        return lock_description(description->get(), command, lock);
      },
      [this, operation](Result<RecordLock> had) { on_attempt(operation, std::move(had)); });
}

void HomeRecordLocks::on_attempt(StreamOperation operation, Result<RecordLock> had) {
  auto found = waits_.find(operation);
  if (found == waits_.end()) return;
  Wait& wait = found->second;
  const int error = had ? 0 : had.error().errno_or(EIO);
  if (error == ESRCH) return attempt(operation);  // the shadow has gone: the process is elsewhere
  const bool is_held = error == EAGAIN || error == EACCES;
  if (is_held && wait.waits && !wait.is_cancelled) {
    run_after(node_.loop, wait.pause, [this, operation] { attempt(operation); });
    wait.pause = std::min(wait.pause * 2, kLongestPause);
    return;
  }
  if (had) {
    had = with_holder(wait, *had);
    note(wait);
  }
  const bool was_cancelled = wait.is_cancelled;
  const Done done = std::move(wait.done);
  waits_.erase(found);
  done(is_held && was_cancelled ? errno_error("interrupted", EINTR) : std::move(had));
}

void HomeRecordLocks::note(const Wait& wait) {
  if (wait.command != F_SETLK || !wait.by_description) return;
  RecordLockTable::Request now{as_holder(wait.owner), wait.lock};
  now.lock.pid = wait.owner.description == 0 ? wait.owner.process : -1;
  held_[wait.identity].lock(0, now, [](const Status&) {});
}

RecordLock HomeRecordLocks::with_holder(const Wait& wait, const RecordLock& answer) const {
  if (wait.command != F_GETLK || answer.type == F_UNLCK || answer.pid > 0) return answer;
  const auto held = held_.find(wait.identity);
  if (held == held_.end()) return answer;
  const RecordLock found = held->second.blocking(0, as_holder(wait.owner), wait.lock);
  return found.type == F_UNLCK ? answer : found;
}

RecordLock HomeRecordLocks::blocking(const FdIdentity& file, pid_t process,
                                     const RecordLock& wanted) const {
  RecordLock none = wanted;
  none.type = F_UNLCK;
  const auto held = held_.find(file);
  return held == held_.end() ? none : held->second.blocking(0, as_holder({process, 0}), wanted);
}

bool HomeRecordLocks::has_locks_on(const FdIdentity& file) const {
  return held_.contains(file);
}

void HomeRecordLocks::forget(const Key& key) {
  const auto held = held_.find(key.file);
  if (held == held_.end()) return;
  held->second.release(0, as_holder(key.owner));
  if (!held->second.is_locked(0)) held_.erase(held);
}

// The owner's own. Its locks end with it; it is watched from its first one on.
void HomeRecordLocks::find_description(const Wait& wait,
                                       std::function<void(std::shared_ptr<UniqueFd>)> done) {
  const Key key{wait.owner, wait.identity};
  if (auto known = descriptions_.find(key); known != descriptions_.end())
    return done(known->second);
  in_worker(
      node_.workers, [file = wait.file] { return open_anew(file->get()); },
      [this, key, done = std::move(done)](std::shared_ptr<UniqueFd> opened) {
        if (!opened) return done(nullptr);
        const bool is_new = !has_locks(key.owner.process);
        const auto kept = descriptions_.emplace(key, std::move(opened)).first->second;
        if (is_new) watch(key.owner.process);
        done(kept);
      });
}

void HomeRecordLocks::watch(pid_t owner) {
  LockOwnerEnds ask;
  ask.owner = owner;
  const NodeId home = holders_ ? holders_->home_of(owner) : node_.self;
  node_.messenger.request(home, ask, {},
                          [this, owner](Result<std::string>) { forget_owner(owner); });
}

void HomeRecordLocks::forget_owner(pid_t owner) {
  std::erase_if(descriptions_, [&](const auto& one) {
    if (one.first.owner.process != owner) return false;
    forget(one.first);
    return true;
  });
}

// Answered at its next try, which may still succeed.
void HomeRecordLocks::cancel(StreamOperation operation) {
  if (auto found = waits_.find(operation); found != waits_.end()) found->second.is_cancelled = true;
}

void HomeRecordLocks::forget_node(NodeId node) {
  std::erase_if(waits_, [&](const auto& wait) { return wait.first.node == node; });
}

void HomeRecordLocks::let_go(const LockOwner& owner, int file) {
  const auto identity = own_fd_identity(file);
  if (!identity) return;
  const Key key{owner, *identity};
  descriptions_.erase(key);
  forget(key);
  if (owner.description == 0 && holders_) holders_->let_go(owner.process, file);
}

bool HomeRecordLocks::has_locks(pid_t process) const {
  if (holds_record_locks(process)) return true;
  return std::any_of(descriptions_.begin(), descriptions_.end(),
                     [&](const auto& one) { return one.first.owner.process == process; });
}

}  // namespace krg
