// PriorityLocks: mutexes with priority inheritance (PTHREAD_PRIO_INHERIT) in memory that other
// nodes share. The word holds the owner's thread id, so that it is locked and unlocked without a
// call while nobody waits; what the kernel does for those who wait, krgd does here: it changes the
// word itself (ChangeLock) on behalf of the caller. Who waits stands in the same queues as
// all waiters of words (futex_home.h), looks at the word after it has queued, and again when it is
// woken. Nobody's priority is raised: that would be another kernel's thread.
//
// Whoever takes the word after it had queued leaves FUTEX_WAITERS in it, so that its unlock wakes
// the next one; a wake-up that reaches somebody who has the lock already is thus not lost.
//
// Threads: the loop's thread. Owned by FutexCalls.
// Source: futex(2); kernel/futex/pi.c of Linux 6.1. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <optional>

#include "alive.h"
#include "dead_owners.h"
#include "futex_messages.h"
#include "krg/procmgr/ipc.h"
#include "waiting_calls.h"

namespace krg {

class PriorityLocks {
 public:
  PriorityLocks(NodeContext& node, WaitingCalls& waits, const SharedWords& words,
                DeadOwners& owners);
  PriorityLocks(const PriorityLocks&) = delete;
  PriorityLocks& operator=(const PriorityLocks&) = delete;

  // The caller, a thread of `process`, gets the lock, at once or when it is free; `ticket` is no
  // other waiter's of this node.
  using Call = SyscallBroker::Call;
  using Deadline = std::optional<WaitingCalls::Clock::time_point>;
  void lock(Call call, pid_t process, const SharedPlace& place, Deadline deadline, uint64_t ticket);
  void try_lock(Call call, const SharedPlace& place);
  void unlock(Call call, const SharedPlace& place);

  // Whether it is one of these that has been woken.
  bool woken(uint64_t ticket);
  // Those who wait for a word of the set look at it.
  void look_at_set(SetId set);
  void home_failed(NodeId failed);

 private:
  struct Waiter {
    uint64_t wait = 0;  // its number in WaitingCalls
    NodeId home;
    SharedPlace place;
    pid_t tid = 0;
    RemoteAddr address;
    enum class State { kQueueing, kLooking, kWaiting, kLeaving } state = State::kQueueing;
    bool is_queued = true;  // else it has been woken
    bool has_looked = false;
    std::optional<WaitingCalls::Why> why;  // it is to wait no longer
    EventLoop::Timer look;
  };
  void queue(uint64_t ticket);
  void look(uint64_t ticket);
  void looked(uint64_t ticket, const Result<uint32_t>& word);
  void end(uint64_t ticket, WaitingCalls::Why why);
  void leave(uint64_t ticket);
  void finish(uint64_t ticket, int error);
  void change(const SharedPlace& place, pid_t tid, futex_messages::ChangeLock::What what,
              std::function<void(Result<uint32_t>)> done);

  NodeContext& node_;
  WaitingCalls& waits_;
  const SharedWords& words_;
  DeadOwners& owners_;
  std::map<uint64_t, Waiter> waiters_;  // by ticket
  Alive alive_;
};

// What becomes of a lock's word. Pure.
namespace priority_lock {
bool is_free(uint32_t word);
bool is_owned(uint32_t word, pid_t by);
uint32_t changed(uint32_t word, const futex_messages::ChangeLock& change);
}  // namespace priority_lock

}  // namespace krg
