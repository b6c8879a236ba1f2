// SemaphoreSets: the System V semaphores of a session as a pure state machine: a call or another
// event goes in, the calls that are answered by it come out. Calls that have to wait stay until
// they can be carried out, their set is removed, or cancel() takes them out.
//
// calls and their args (pointers are left out; `data` is what they point to):
//   semget(key, nsems, flags)
//   semop(id)                      data: the sembufs. semtimedop is semop: times are the caller's
//   semctl(id, number, command, value)  data: the values of SETALL, the semid_ds of IPC_SET; out:
//                                  the values of GETALL, a semid_ds, a seminfo
//
// Owned by the IpcHome of the node that keeps the objects. Errors: as semop(2), semctl(2),
// semget(2). Source: the same, and the order in which Linux checks.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/sem.h>

#include <list>
#include <map>
#include <set>

#include "ipc_owners.h"
#include "ipc_table.h"
#include "krg/procmgr/saved_ipc.h"

namespace krg {

class SemaphoreSets {
 public:
  // Linux's defaults (semget(2)).
  static constexpr int kMostPerSet = 32000, kMostSets = 32000, kMostOperations = 500;
  static constexpr int kMostValue = 32767;
  static constexpr int64_t kMostSemaphores = 1024000000;
  // A command of our own for semctl: how many semaphores the set has, whoever asks.
  static constexpr int kCountCommand = 1 << 20;

  explicit SemaphoreSets(int first_sequence = 0) : sets_(first_sequence) {}

  IpcDones step(const IpcCall& call);
  // Takes a waiting call out: its ticket's caller waits no longer. False when it does not wait.
  bool cancel(const IpcTicket& ticket);
  // A process has ended: what it did with SEM_UNDO is undone.
  IpcDones process_ended(pid_t pid);
  // A node has failed: its calls wait no longer, its processes have ended.
  IpcDones node_failed(NodeId node);
  // `call`, a semop, was carried out while its caller died waiting. What it took is given back; one
  // that gave something stays done: somebody may have taken it.
  IpcDones take_back(const IpcCall& call);
  // For checkpoints (saved_objects.cpp): those that are taken, with what is to be undone; made
  // again, `node` having the processes; without them. Errors: those of `takes`; EEXIST.
  Status save(const TakesIpc& takes, SavedIpc& into);
  Status restore(const SavedSemaphores& saved, NodeId node);
  void drop(const SavedSemaphores& saved);
  // The text of /proc/sysvipc/sem.
  std::string text();
  // Processes that have something to be undone.
  size_t undo_count() const { return undos_.size(); }

 private:
  struct Semaphore {
    int value = 0;
    pid_t last_pid = 0;
  };
  struct Waiter {
    IpcCall call;
    std::vector<sembuf> operations;
    size_t blocked_at = 0;  // the operation that cannot be done now
    bool alters = false;
  };
  struct Set {
    IpcPermissions permissions;
    std::vector<Semaphore> semaphores;
    int64_t operated_s = 0, changed_s = 0;
    std::list<Waiter> waiters;  // in order of arrival
  };
  // What a process adds to each semaphore of a set when it ends.
  struct Undo {
    NodeId node;
    std::map<int, std::vector<int>> adjustments;  // by set
  };

  IpcDone get(const IpcCall& call);
  int make(const IpcPermissions& permissions, const IpcCall& call);
  IpcDones operate(const IpcCall& call);
  IpcDones control(const IpcCall& call);
  IpcDone stat(const IpcCall& call, int command);
  IpcDone info(const IpcCall& call, bool in_use);
  IpcDone count_waiters(const IpcCall& call, const Set& set, bool for_zero) const;
  IpcDones change(const IpcCall& call, int id, Set& set);
  IpcDones remove(const IpcCall& call, int id, Set& set);
  // Does all of a waiter's operations, or none: 0, an errno value, or kBlocked.
  static constexpr int kBlocked = -1;
  int try_all(int id, Set& set, Waiter& waiter);
  int try_one(const sembuf& operation, Semaphore& semaphore, int* adjustment);
  void undo_operations(Set& set, const Waiter& waiter, size_t count, std::vector<int>* adjustments);
  // Carries out every waiter that can be now.
  void settle(int id, Set& set, int64_t now_s, IpcDones& done);
  void forget_undo(int id, int number);
  std::vector<int>* adjustments_for(int id, const Set& set, const IpcCall& call);

  IpcTable<Set> sets_;
  std::map<pid_t, Undo> undos_;
  int64_t semaphore_count_ = 0;
};

}  // namespace krg
