// FutexCalls: futex(2) of this node's programs on memory that other nodes share. A word is named by
// where it lies (SharedPlace), so that all nodes mean the same one; who waits for it queues at the
// home of the queues, then looks at the word through the caller's own, coherent, memory. Wakes are
// this kernel's, where bells tell of them (futex_bells.h). Words that lie elsewhere, and private
// futexes, are the kernel's alone.
//
// Waiters look at their words again when a process has ended that made such calls, and once a
// second: robust mutexes of a dead process are free (dead_owners.h), and nobody else says so.
//
// Threads: the loop's thread. Owned by Ipc.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "alive.h"
#include "dead_owners.h"
#include "futex_bells.h"
#include "krg/procmgr/ipc.h"
#include "priority_locks.h"
#include "waiting_calls.h"

namespace krg {

class FutexCalls {
 public:
  // Registers the handlers of futex(2) and its like.
  FutexCalls(NodeContext& node, SyscallBroker& broker, WaitingCalls& waits, ExitWatch& exits,
             SharedWords words);
  FutexCalls(const FutexCalls&) = delete;
  FutexCalls& operator=(const FutexCalls&) = delete;

  // A process of this node has ended.
  void process_ended(pid_t process);

 private:
  using Call = SyscallBroker::Call;
  struct Waiter {
    uint64_t wait = 0;  // its number in WaitingCalls
    NodeId home;
    SharedPlace place;  // of its word
    pid_t tid = 0;
    RemoteAddr address;
    uint32_t expected = 0;
    bool has_looked = false;
    bool leaving = false;
    std::optional<WaitingCalls::Why> why;  // none: the word is not what was expected
    EventLoop::Timer look;
  };
  struct Ask;
  void on_call(Call call);
  void on_newer_call(Call call);
  void on_lock(Call call, pid_t process, const SharedPlace& place);
  void on_wait(Call call, pid_t process, const SharedPlace& place);
  void on_wake(Call call, const SharedPlace& place);
  void on_requeue(Call call, pid_t process, const SharedPlace& place);
  void wake(Call call, const Ask& ask);
  // Reads a word of thread `tid`; the page may have to come from another node first.
  void read_word(pid_t tid, RemoteAddr address, std::function<void(std::optional<uint32_t>)> done);
  void look_at_word(uint64_t ticket);
  void look_at_set(SetId set);
  void look_again(uint64_t ticket);
  void leave(uint64_t ticket, std::optional<WaitingCalls::Why> why);
  void left(uint64_t ticket, bool waited);
  void woken(uint64_t ticket, const SharedPlace& place);
  void on_home_failure(NodeId failed);
  void follow_home(NodeId home);
  void rung(const SharedPlace& place, uint32_t count);
  void remember(pid_t process, SetId set);

  NodeContext& node_;
  WaitingCalls& waits_;
  ExitWatch& exits_;
  SharedWords words_;
  std::map<uint64_t, Waiter> waiters_;  // by ticket
  std::map<pid_t, std::set<SetId>> used_;
  DeadOwners owners_;
  PriorityLocks locks_;
  FutexBells bells_;
  NodeId bells_home_ = kNoNode;  // who has had them hung
  uint64_t next_ticket_ = 1;
  Alive alive_;
};

}  // namespace krg
